"""Whether a run may be gone on with."""

from loraft.config.resolve import load_resolved
from loraft.config.schema import Config
from loraft.errors import RunError
from loraft.runs.run import Run


def check_begun(run: Run, config: Config) -> None:
    """Refuses to go on with a run that was begun with another configuration.

    Raises:
        RunError: with every key that differs, one a line.
    """
    if not run.config_path.exists():
        return
    begun = load_resolved(run.config_path).model_dump()
    now = config.model_dump()
    changed = [
        f"  {section}.{key}: {begun[section][key]} then, {now[section][key]} now"
        for section in now
        if isinstance(now[section], dict) and section not in ("fewshot", "sweep")  # of studies, not of this run
        for key in now[section]
        if begun[section][key] != now[section][key]
    ]
    changed += [f"  seed: {begun['seed']} then, {now['seed']} now"] if begun["seed"] != now["seed"] else []
    if changed:
        raise RunError(
            f"{run.path}: was begun with another configuration:\n" + "\n".join(changed) + "\n"
            f"{run.how_to_resume} continues it as it was begun, --force begins again"
        )
