"""Load test of `loraft serve` on loopback, beside what people write by hand; makes the table of docs/serving.md.

    python benchmarks/serving.py --run RUN        # 5 minutes on an idle machine; writes benchmarks/results/serving.json
    python benchmarks/serving.py --table          # only writes the table again

Each server is a process of its own, and so are the clients. They run at the same time, and take turns. Every request
holds one sentence of the bundled test split. First N clients send one request after the other (closed loop). Then one
at a time arrives at random at half of the best of these rates (open loop): a request's time counts from when it was
due, so that waiting is not hidden.

The two servers beside it are FastAPI with `transformers`, on the same weights with the adapter merged, in the same
dtype, and answer one request at a time, as in the examples that people start from:

- generate: `pipeline("text-generation")` gets the run's chat and generates the answer, greedily and no longer than the
  longest one; no probabilities.
- score: one forward pass of the model over the whole prompt, then a softmax over the label words' first tokens.

FastAPI is no dependency of loraft: `--fastapi FOLDER` names a folder that it was installed into (`pip install --target
FOLDER fastapi`). Without it, these servers are left out and the record says so.
"""

import argparse
import asyncio
import importlib.util
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]
OUT, PAGE = ROOT / "benchmarks/results/serving.json", ROOT / "docs/serving.md"
BEGIN, END = "<!-- made by benchmarks/serving.py -->\n", "<!-- end -->\n"
LORAFT, CLIENTS = "loraft serve", (1, 8, 64)
RIVALS = {"generate": "FastAPI, pipeline generates", "score": "FastAPI, one forward pass"}
HEAD = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
TIMEOUT = 120  # seconds for one answer, and for a server's start


# --- the servers beside it --------------------------------------------------------------------------------------------


def rival(kind: str, folder: Path) -> None:
    """Serves the merged model in `folder`, one request at a time."""
    import socket
    import threading

    import torch
    import uvicorn
    from fastapi import FastAPI
    from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    pipe = pipeline("text-generation", model=model, tokenizer=tokenizer)
    words = torch.tensor(task["first_tokens"])
    app, lock = FastAPI(), threading.Lock()

    def chat(text: str) -> list[dict[str, str]]:
        return [*task["chat"][:-1], {"role": "user", "content": task["before"] + text + task["after"]}]

    def generated(text: str) -> dict[str, Any]:
        found = pipe(chat(text), max_new_tokens=task["longest"], do_sample=False, return_full_text=False)
        return {"label": found[0]["generated_text"].rpartition(":")[2].strip()}

    def scored(text: str) -> dict[str, Any]:
        given = {"add_generation_prompt": True, "date_string": task["date_string"], "tokenize": False}
        prompt = tokenizer.apply_chat_template(chat(text), **given) + task["prefix"]
        inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        with torch.inference_mode():
            probs = model(**inputs, logits_to_keep=1).logits[0, -1, words].float().softmax(-1)
        return {"label": task["labels"][int(probs.argmax())], "probs": probs.tolist()}

    @app.post("/classify")
    def classify(body: dict[str, Any]) -> dict[str, Any]:
        with lock:  # a pipeline is not made for threads
            return {"generate": generated, "score": scored}[kind](body["input"])

    # The protocol is named, since asyncio does not switch Nagle's algorithm off without it.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.bind(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{bound.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[bound])


def merge(run: Path, folder: Path) -> None:
    """Writes the run's weights with the adapter merged, and what the servers need of its task."""
    from loraft.data.prompt import messages, user_parts
    from loraft.engine.layout import common_prefix
    from loraft.models.load import load_run
    from loraft.runs.bundle import config_of
    from loraft.runs.run import Run

    opened = Run.open(run)
    encoder, model = load_run(opened, config_of(opened))
    dtype = model.dtype
    whole = model.merge_and_unload()
    if getattr(whole, "is_loaded_in_4bit", False):
        whole.dequantize()
    whole.to(dtype).save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    answers, (before, after) = encoder.completions_K, user_parts(encoder.task)
    shared = common_prefix(answers)
    task = {
        "chat": messages(encoder.task, ""), "before": before, "after": after, "labels": encoder.task.labels,
        "first_tokens": [ids[shared] for ids in answers], "longest": encoder.longest_answer,
        "prefix": encoder.tokenizer.decode(answers[0][:shared]), "date_string": encoder.date_string,
    }  # fmt: skip
    (folder / "task.json").write_text(json.dumps(task, ensure_ascii=False), encoding="utf-8")


@contextmanager
def process(*arguments: str) -> Iterator[str]:
    """A server's process; yields its address, which it prints when it listens."""
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            address = child.stdout.readline().strip()
            if not address.startswith("http"):
                raise SystemExit(f"{' '.join(arguments)}: printed no address (got {address!r})")
            yield address
        finally:
            child.terminate()


# --- the clients ------------------------------------------------------------------------------------------------------


class Connection:
    """One kept connection; a request is written and its answer read with as little work as possible."""

    def __init__(self, address: str) -> None:
        self.host, self.port = urlsplit(address).hostname, urlsplit(address).port
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def label(self, text: str) -> str:
        """The label that the server gives."""
        if self.streams is None:
            self.streams = await asyncio.open_connection(self.host, self.port)
        reader, writer = self.streams
        body = json.dumps({"input": text}).encode()
        writer.write(HEAD % len(body) + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        answer = json.loads(await reader.readexactly(length))
        if b" 200 " not in lines[0] + b" ":
            raise SystemExit(f"the server answered {lines[0].decode()}: {answer}")
        return str(answer["data"][0]["label"] if "data" in answer else answer["label"])


async def closed_loop(address: str, texts: list[str], clients: int, seconds: float) -> list[float]:
    """Seconds of each answer to clients that send one request after the other; warmed up before."""
    begin = time.perf_counter() + min(1.0, seconds / 4)
    took: list[float] = []

    async def client(number: int) -> None:
        connection, i = Connection(address), number
        while (sent := time.perf_counter()) < begin + seconds:
            await connection.label(texts[i % len(texts)])
            i += clients
            if sent >= begin:
                took.append(time.perf_counter() - sent)

    await asyncio.gather(*map(client, range(clients)))
    return took


async def open_loop(address: str, texts: list[str], rate: float, seconds: float) -> list[float]:
    """Seconds from when a request was due to its answer; requests are due at random, `rate` a second."""
    chance, idle = random.Random(0), [Connection(address) for _ in range(64)]
    took: list[float] = []

    async def one(due: float, text: str) -> None:
        connection = idle.pop() if idle else Connection(address)
        await connection.label(text)
        took.append(time.perf_counter() - due)
        idle.append(connection)

    start = due = time.perf_counter()
    tasks = []
    while due < start + seconds:
        due += chance.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due, texts[len(tasks) % len(texts)])))
    await asyncio.gather(*tasks)
    return took


async def labels_of(address: str, texts: list[str]) -> list[str]:
    connection = Connection(address)
    return [await connection.label(text) for text in texts]


def clients_process(order: dict[str, Any]) -> Any:
    """What `client` prints, from a process of its own."""
    given = [sys.executable, __file__, "--client", json.dumps(order, ensure_ascii=False)]
    done = subprocess.run(given, stdout=subprocess.PIPE, text=True, check=True, timeout=TIMEOUT + 4 * order["seconds"])
    return json.loads(done.stdout)


def client(order: dict[str, Any]) -> None:
    """Prints what one measurement gives."""
    from loraft.config.resolve import resolve
    from loraft.data.dataset import load_data

    texts = [row.text for row in load_data(resolve(), "test").examples]
    address, seconds = order["address"], order["seconds"]
    if order["what"] == "labels":
        print(json.dumps(asyncio.run(labels_of(address, texts[:100]))))
        return
    loop = closed_loop(address, texts, order["clients"], seconds) if order["what"] == "closed" else open_loop(
        address, texts, order["rate"], seconds
    )  # fmt: skip
    took = sorted(asyncio.run(loop))
    cut = statistics.quantiles(took, n=100) if len(took) > 1 else took * 99
    print(json.dumps({"rows_per_second": len(took) / seconds, "p50_ms": 1000 * cut[49], "p99_ms": 1000 * cut[98]}))


# --- the measurement --------------------------------------------------------------------------------------------------


def median_of(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(statistics.median(one[key] for one in rounds), 2) for key in rounds[0]}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch
    from timing import machine

    from loraft.cli.console import say
    from loraft.runs.environment import environment
    from loraft.runs.records import as_json

    started, counts = time.perf_counter(), [int(count) for count in arguments.clients.split(",")]
    left_out = None if importlib.util.find_spec("fastapi") or arguments.fastapi else "fastapi is not installed"
    rivals = {} if left_out or arguments.alone else RIVALS
    with TemporaryDirectory() as folder, ExitStack() as stack:
        given = ["-m", "loraft", "serve", "--run", str(arguments.run), "--port", "0"]
        servers = {LORAFT: stack.enter_context(process(*given))}
        if rivals:
            merge(arguments.run, Path(folder))
        for kind, name in rivals.items():
            extra = ["--fastapi", str(arguments.fastapi)] if arguments.fastapi else []
            servers[name] = stack.enter_context(process(__file__, "--rival", kind, "--merged", folder, *extra))
        found: dict[str, dict[str, list[dict[str, float]]]] = {name: {str(n): [] for n in counts} for name in servers}
        labels = {
            name: clients_process({"what": "labels", "address": at, "seconds": 0}) for name, at in servers.items()
        }
        for _ in range(arguments.rounds):
            for count in counts:
                for name, address in servers.items():
                    order = {"what": "closed", "address": address, "clients": count, "seconds": arguments.seconds}
                    one = clients_process(order)
                    found[name][str(count)].append(one)
                    say(f"{time.perf_counter() - started:5.0f} s  {name}, {count} clients: {one}")
        results = {name: {n: median_of(rounds) for n, rounds in by.items()} for name, by in found.items()}
        for name, address in servers.items():
            rate = max(one["rows_per_second"] for one in results[name].values()) / 2
            order = {"what": "open", "address": address, "rate": rate, "seconds": arguments.seconds}
            results[name]["half"] = median_of([clients_process(order)])
            print(
                f"{time.perf_counter() - started:5.0f} s  {name}, half load: {results[name]['half']}", file=sys.stderr
            )
    same = {name: sum(a == b for a, b in zip(labels[LORAFT], labels[name], strict=True)) for name in servers}
    return {
        "environment": {key: value for key, value in as_json(environment()).items() if key != "command"},
        "machine": machine(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        "sizes": {"seconds": arguments.seconds, "rounds": arguments.rounds, "clients": counts},
        "left_out": left_out, "same_labels_of_100": same, "results": results,
    }  # fmt: skip


def table(record: dict[str, Any]) -> str:
    """The results in Markdown."""
    counts, results = record["sizes"]["clients"], record["results"]
    columns = [*(f"{n} client{'s' if n > 1 else ''}" for n in counts), "half load"]
    lines = ["| rows a second; p50 / p99 in ms | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for name, by in results.items():
        cells = [f"{one['rows_per_second']:.0f}; {one['p50_ms']:.1f} / {one['p99_ms']:.1f}" for one in by.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    most = str(counts[-1])
    notes = [
        f"{LORAFT} answers {results[LORAFT][most]['rows_per_second'] / by[most]['rows_per_second']:.1f} times as many"
        f" rows as \"{name}\" at {most} clients, with the same label for {record['same_labels_of_100'][name]} of 100."
        for name, by in results.items() if name != LORAFT
    ]  # fmt: skip
    machine, sizes = record["machine"], record["sizes"]
    notes.append(
        f"{machine['name']}, {machine['threads']} threads; {sizes['rounds']} rounds of {sizes['seconds']:g} s."
        + (f" No server beside it: {record['left_out']}." if record["left_out"] else "")
    )
    return "\n".join([*lines, "", *notes]) + "\n"


def write_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    made = table(json.loads(OUT.read_text(encoding="utf-8")))
    PAGE.write_text(f"{before}{BEGIN}{made}{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a finished run")
    parser.add_argument("--seconds", type=float, default=6, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--clients", default=",".join(map(str, CLIENTS)), help="numbers of clients, ascending")
    parser.add_argument("--alone", action="store_true", help="no server beside it")
    parser.add_argument("--fastapi", type=Path, help="folder that FastAPI was installed into")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--table", action="store_true", help="only write the table of docs/serving.md again")
    parser.add_argument("--rival", choices=RIVALS, help=argparse.SUPPRESS)
    parser.add_argument("--merged", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--client", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fastapi:
        sys.path.append(str(arguments.fastapi))
    if arguments.rival:
        rival(arguments.rival, arguments.merged)
    elif arguments.client:
        client(arguments.client)
    elif arguments.table:
        write_table()
    else:
        if arguments.run is None:
            parser.error("--run: a finished run, as `loraft train --quant none` makes one")
        record = measure(arguments)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        print(table(record))
        if arguments.out == OUT:
            write_table()


if __name__ == "__main__":
    main()
