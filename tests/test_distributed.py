import subprocess
import sys

import numpy as np
import pytest

from conftest import ROOT
from weighloss import RatioSweep

# SGD without dropout: only then are two processes, whose dropout masks differ, the same computation as one.
SWEEP = """
import sys; sys.path.insert(0, {tests!r})
from conftest import collate, make_data, make_model, quiet_args
from weighloss import RatioSweepCallback, WeightedLossConfig, WeightedLossTrainer
WeightedLossTrainer(
    model=make_model(dropout=0.0),
    args=WeightedLossConfig({path!r}, use_cpu=True, **quiet_args(
        optim="sgd", learning_rate=0.1, per_device_train_batch_size={batch}, gradient_accumulation_steps=2,
        average_tokens_across_devices={average},
    )),
    train_dataset=make_data(192, 0), eval_dataset=make_data(101, 1), data_collator=collate,
    callbacks=[RatioSweepCallback(ratios=[0.3, 20], seeds=[1, 2])],
).train()
"""


@pytest.mark.slow
@pytest.mark.parametrize("average", [True, False])
def test_two_processes_sweep_to_the_points_of_one(tmp_path, average):
    sweeps = {}
    for processes in (1, 2):
        path = tmp_path / str(processes)
        script = tmp_path / f"{processes}.py"
        script.write_text(
            SWEEP.format(tests=str(ROOT / "tests"), path=str(path), batch=16 // processes, average=average)
        )
        launcher = (
            ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
        )
        run = subprocess.run([sys.executable, *launcher, str(script)], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr[-3000:]
        sweeps[processes] = RatioSweep.load(path)
    for one, two in zip(sweeps[1].points, sweeps[2].points, strict=True):
        assert (one.ratio, one.seed, one.tp, one.fp, one.fn, one.tn) == (
            two.ratio,
            two.seed,
            two.tp,
            two.fp,
            two.fn,
            two.tn,
        )
        assert two.eval_plain_loss == pytest.approx(one.eval_plain_loss, abs=1e-6)
        assert two.eval_loss == pytest.approx(one.eval_loss, abs=1e-6)
        logits, labels = sweeps[2].predictions(two)
        assert np.abs(logits - sweeps[1].predictions(one)[0]).max() < 1e-6
        assert labels.tolist() == sweeps[1].predictions(one)[1].tolist()
