"""The report: one page for Python and for the shell."""

import os
import subprocess

import pytest
from conftest import TEST

import datafusion_wae


def test_the_page_is_the_shells(ctx, models, tmp_path):
    page = ctx.report(str(TEST), model="clothes", label="label", alpha=0.05)
    assert page.startswith("<!DOCTYPE html>") and "<script" not in page
    assert "are outliers at α = 0.05" in page

    binary = os.environ.get("WAE_SHELL")
    if not binary:
        pytest.skip("WAE_SHELL names no shell of the same version, such as target/debug/wae after cargo test")
    arguments = ["--model", "clothes", "--source", str(TEST), "--label", "label", "--alpha", "0.05"]
    statement = f"SET wae.model_dir = '{models[0]}'"
    subprocess.run([binary, "report", *arguments, "-c", statement], cwd=tmp_path, check=True, timeout=300)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page


def test_tables_and_other_columns(ctx):
    ctx.register("images", ctx.sql(f"SELECT image AS picture FROM '{TEST}' LIMIT 20"))
    page = ctx.report("images", model="clothes", image="picture")
    assert "of 20 images" in page and "<code>picture</code>" in page


def test_mistakes_are_named(ctx):
    with pytest.raises(datafusion_wae.PlanError, match="no model 'none'"):
        ctx.report(str(TEST), model="none")
    with pytest.raises(datafusion_wae.PlanError, match="report: alpha must be between 0 and 1"):
        ctx.report(str(TEST), model="clothes", alpha=2)
