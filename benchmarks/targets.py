"""What the tools and cases are called, and by how much loraft means to be ahead: floors, not results."""

LORAFT = "loraft"
RECIPE, TRL, TRL_BEST = "tutorial's recipe", "TRL defaults", "TRL at its best"
HARNESS = "log-likelihood loop"

WHAT = {
    "step-1b-4": "training step, batch 4",
    "step-1b-16": "training step, batch 16",
    "step-1b-64": "training step, batch 64",
    "step-8b-nf4-4": "training step, batch 4, backbone in NF4",
    "step-8b-nf4-16": "training step, batch 16, backbone in NF4",
    "memory-8b-nf4-4": "training step of loraft alone, batch 4, backbone in NF4",
    "memory-8b-nf4-16": "training step of loraft alone, batch 16, backbone in NF4",
    "step-1b-nf4-4": "training step, batch 4, backbone in NF4",
    "step-1b-nf4-16": "training step, batch 16, backbone in NF4",
    "step-4": "training step, batch 4",
    "step-16": "training step, batch 16",
    "zero-shot": "zero-shot evaluation",
    "zero-shot-1b": "zero-shot evaluation",
    "few-shot": "evaluation with 8 shots",
    "few-shot-1b": "evaluation with 8 shots",
    "predict": "prediction of 1,000 lines, warm",
    "sweep": "sweep of 8 ranks, end to end",
    "sweep-1b": "sweep of 8 ranks, end to end",
}
CPU_TARGETS = {
    "step-1b-4": {RECIPE: 3.0, TRL: 2.0},
    "step-1b-16": {RECIPE: 4.5, TRL: 3.0},
    "step-4": {RECIPE: 2.7, TRL: 2.5},
    "step-16": {RECIPE: 4.3, TRL: 4.5},
    "zero-shot": {RECIPE: 8.0, HARNESS: 3.0},
    "zero-shot-1b": {RECIPE: 4.0, HARNESS: 3.0},
    "few-shot": {RECIPE: 12.0, HARNESS: 8.0},
    "predict": {RECIPE: 20.0, HARNESS: 3.0},
    "sweep": {RECIPE: 4.0, TRL: 3.0},
}
GPU_TARGETS = {
    "step-1b-4": {RECIPE: 20.0, TRL_BEST: 12.0},
    "step-1b-16": {RECIPE: 13.0, TRL_BEST: 8.0},
    "step-1b-64": {RECIPE: 6.0, TRL_BEST: 4.0},
    "step-1b-nf4-4": {RECIPE: 15.0, TRL_BEST: 12.0},
    "step-1b-nf4-16": {RECIPE: 10.0, TRL_BEST: 9.0},
    "zero-shot-1b": {RECIPE: 150.0, HARNESS: 6.0},
    "few-shot-1b": {RECIPE: 80.0, HARNESS: 8.0},
    "sweep-1b": {RECIPE: 60.0, TRL_BEST: 30.0},
}
TARGETS = {"cpu": CPU_TARGETS, "cuda": GPU_TARGETS}
