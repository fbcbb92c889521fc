"""Whose failure `compare.py` takes which for, with processes that answer as the bench program and PyTorch's do."""

import sys
import time

import compare
import pytest

CELL = ("mnist", "train", 100, "tf32")
OTHER = ("mnist", "train", 100, "bf16")
GOOD = 'print(\'{"ms": 2.0, "event_ms": 2.0, "gflop": 1.0}\', flush=True)'
BAD = 'print(\'{"error": "CUDNN_STATUS_EXECUTION_FAILED"}\', flush=True)'
ENDS = 'sys.exit("out of memory")'
HANGS = "import time; time.sleep(3600)"


def server(failure, prepared=GOOD, run=GOOD, of=""):
    """One that does `prepared` or `run` for the lines that name `of`, and answers the others."""
    lines = ["import sys", "of = ''", "for line in sys.stdin:", "    if line.startswith('prepare'): of = line",
             f"    if {of!r} not in of: {GOOD}", f"    elif line.startswith('run'): {run}", f"    elif line.startswith('prepare'): {prepared}",
             f"    else: {GOOD}"]
    return compare.Server([sys.executable, "-c", "\n".join(lines)], failure)


def compared(ours, torch, seconds=3000):
    end = time.time() + seconds
    jobs = [(CELL, compare.PLAIN), (OTHER, compare.PLAIN)]
    try:
        return compare.compare(jobs, ours, torch, "cuda:0", lambda: end - time.time())
    finally:
        ours.stop()
        torch.stop()


def test_nothing_fails():
    ratios, missing, broken = compared(server(compare.OursFailed), server(compare.PeerFailed))
    assert ratios == {"mnist train 100 tf32": 1.0, "mnist train 100 bf16": 1.0}
    assert (missing, broken) == ([], [])


@pytest.mark.parametrize("fault", [{"prepared": BAD}, {"run": BAD}, {"prepared": ENDS}, {"run": ENDS}])
def test_a_failure_of_ours_is_told_from_the_rest(fault):
    ratios, missing, broken = compared(server(compare.OursFailed, of="bf16", **fault), server(compare.PeerFailed))
    why = "out of memory" if ENDS in fault.values() else "CUDNN_STATUS_EXECUTION_FAILED"
    assert (list(ratios), missing, broken) == (["mnist train 100 tf32"], [], [f"mnist train 100 bf16 ({why})"])


@pytest.mark.parametrize("fault", [{"prepared": BAD}, {"run": BAD}, {"prepared": ENDS}, {"run": ENDS}])
def test_pytorch_s_is_no_failure_of_ours(fault):
    ratios, missing, broken = compared(server(compare.OursFailed), server(compare.PeerFailed, of="bf16", **fault))
    assert list(ratios) == ["mnist train 100 tf32"] and broken == []
    assert missing and all("bf16" in line for line in missing)


def test_who_hangs_has_failed_and_the_next_cell_is_measured(monkeypatch):
    # Who does not hang answers within milliseconds, or a hundred times as long on a loaded machine.
    monkeypatch.setitem(compare.PATIENCE, compare.OursFailed, 15)
    ratios, missing, broken = compared(server(compare.OursFailed, run=HANGS, of="tf32"), server(compare.PeerFailed))
    assert list(ratios) == ["mnist train 100 bf16"]
    assert missing == [] and len(broken) == 1 and "took longer than 15 s" in broken[0]


def test_who_is_late_has_not_failed():
    ratios, missing, broken = compared(server(compare.OursFailed, run=HANGS), server(compare.PeerFailed), seconds=4)
    assert ratios == {} and broken == []
    assert "no time left" in missing[-1]
