"""analysis/samplers_table.py: one row per task and sampler."""

import contract


def test_every_sampler_of_every_task_has_a_row(real_sweep, run_figure):
    done = run_figure("samplers_table.py", real_sweep)
    assert done.returncode == 0, done.stderr
    header, ruler, *body = done.stdout.splitlines()
    assert len(body) == 4 * len(contract.SAMPLERS)
    assert {line.count("|") for line in (header, ruler, *body)} == {11}
    assert "nan" not in done.stdout
