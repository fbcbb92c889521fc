"""Runs the shell `wae`, and keeps results: a JSON object a line, so that a bench that was stopped goes on where it was."""

import argparse
import json
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHELL = ROOT / "target/debug/wae"


class Product:
    """The shell, with a folder of models."""

    def __init__(self, models, shell=SHELL):
        self.models, self.shell = pathlib.Path(models), shell
        self.models.mkdir(parents=True, exist_ok=True)

    def run(self, *statements):
        """Runs statements in one process; gives the rows of all, each a dict."""
        command = [self.shell, "--format", "json", "-c", f"SET wae.model_dir = '{self.models}'", *statements]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{done.stderr.strip()}\nof: {'; '.join(statements)}")
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


class Results:
    """Measurements under what was measured: the fields of `identity`."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.rows = [json.loads(line) for line in lines]

    def find(self, identity):
        return next((row for row in self.rows if all(row.get(k) == v for k, v in identity.items())), None)

    def add(self, identity, values):
        self.rows.append({**identity, **values})
        with self.path.open("a") as file:
            file.write(json.dumps(self.rows[-1]) + "\n")
        print(json.dumps(self.rows[-1]), flush=True)


def arguments(name, documentation, data, seeds):
    """A parser of the arguments that all benches of scores take, and of where the data is; the name is that of the results."""
    parser = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, default=ROOT / data)
    parser.add_argument("--seeds", nargs="+", type=int, default=seeds)
    parser.add_argument("--shell", default=SHELL)
    parser.add_argument("--models", default=ROOT / "target/scores/models")
    parser.add_argument("--results", default=ROOT / f"target/scores/{name}.jsonl")
    return parser


def options(given):
    """Named arguments of SQL: `, epochs => 8, network => '16,32'`."""
    sql = {name: f"'{value}'" if isinstance(value, str) else str(value).lower() for name, value in given.items()}
    return "".join(f", {name} => {value}" for name, value in sql.items())
