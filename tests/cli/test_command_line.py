import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from results.sweeps import GOLDEN
from weighloss import RatioSweep, reports
from weighloss.cli.arguments import DataArguments
from weighloss.cli.common import Command, check_training
from weighloss.cli.config_file import write_config
from weighloss.cli.main import main
from weighloss.cli.sweep import MAIN_FLAGS, make_parser

COMMANDS = ("sweep", "train", "plot", "push")


def ended(*words: object) -> str | int | None:
    """The message or the status that the `weighloss` command ends with."""
    with pytest.raises(SystemExit) as end:
        main(list(map(str, words)))
    return end.value.code


@pytest.fixture
def no_data(monkeypatch):
    """Loading a tokenizer, which comes before the data, fails the test."""

    def fail(*args):
        raise AssertionError("data would be loaded")

    monkeypatch.setattr("weighloss.cli.common.load_tokenizer", fail)
    monkeypatch.setattr("weighloss.cli.common.load_data", fail)


def test_the_help_of_weighloss_names_every_command_and_imports_no_large_library():
    code = (
        "import sys\n"
        "from weighloss.cli.main import main\n"
        "try: main(['--help'])\n"
        "finally: print({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr.strip() == "set()"
    for command in COMMANDS:
        assert f"\n    {command} " in run.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_names_the_command_as_it_was_called(command, capsys, run_script):
    assert ended(command, "--help") == 0
    assert f"usage: weighloss {command} " in capsys.readouterr().out.replace("\n", " ")
    script = "plot_precision_recall.py" if command == "plot" else f"{command}.py"
    assert run_script(script, "--help") == "0"
    shown = capsys.readouterr().out
    assert f"{script} " in shown.replace("\n", " ")
    assert "weighloss " + command not in shown.partition("options:")[0]


def test_the_help_of_sweep_fits_a_screen_and_its_flags_are_known(capsys):
    assert ended("sweep", "--help") == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) < 50
    assert max(map(len, shown.splitlines())) < 130
    assert ended("sweep", "--help-all") == 0
    every = capsys.readouterr().out
    assert all(f"\n{group}:\n" in shown for group in ("options", "model", "data", "sweep"))
    assert "weighloss sweep --train_file spam.csv --text_column_names sms" in shown.partition("options:")[0]
    flags = set(re.findall(r"^  (--\w+)", shown, re.M))
    assert flags == {f"--{name}" for name in MAIN_FLAGS}
    assert not [flag for flag in flags if f"{flag} " not in every and f"{flag}\n" not in every]


def test_flags_from_a_file_are_those_of_the_command_line_which_wins(tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text("train_file: missing.csv\nratios: [1, natural]\nlearning_rate: 1e-4\nchoose: recall>=0.9\n")
    command = Command("sweep", ["--config", str(file), "--choose", "f1", "--seeds", "1", "2"])
    _, data, sweep, args = command.parse(make_parser)
    assert (data.train_file, sweep.ratios, sweep.seeds, sweep.choose) == (
        "missing.csv",
        ["1", "natural"],
        [1, 2],
        "f1",
    )
    assert args.learning_rate == 1e-4
    assert command.given == {"train_file", "ratios", "learning_rate", "choose", "seeds"}
    file.write_text("learning-rate: 0.5\npositive_label: no\n")
    written = Command("sweep", ["--config", str(file), "--learning_rate", "0.1"]).parse(make_parser)[3]
    assert (written.learning_rate, written.positive_label) == (0.1, "no")
    again = tmp_path / "again.yaml"
    write_config(again, {*command.given, "token"}, (data, sweep, args))
    same = Command("sweep", ["--config", str(again)])
    _, other_data, other_sweep, other_args = same.parse(make_parser)
    assert (other_data, other_sweep, other_args.learning_rate) == (data, sweep, 1e-4)
    assert "token" not in again.read_text()
    json_file = tmp_path / "sweep.json"
    json_file.write_text('{"ratios": [1, 7], "class_weights": {"ham": 1, "spam": 7}}')
    assert Command("sweep", ["--config", str(json_file)]).parse(make_parser)[3].class_weights == {"ham": 1, "spam": 7}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("- a\n- b\n", "must hold one flag a line"), ("a: [", "cannot be read"), (None, "cannot be read")],
)
def test_a_file_of_flags_that_cannot_be_read_is_refused_in_one_sentence(tmp_path, content, sentence):
    file = tmp_path / "sweep.yaml"
    if content is not None:
        file.write_text(content)
    ending = ended("sweep", "--config", str(file))
    assert sentence in str(ending)
    assert "\n" not in str(ending)


def test_python_m_weighloss_is_the_command_too():
    run = subprocess.run(
        [sys.executable, "-m", "weighloss", "nothing"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert run.returncode == 2
    assert "choose from" in run.stderr
    assert ended("--version") == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--num_train_epochs", 3], "--num_train_epochs has no effect on a sweep: write --epochs_per_ratio instead."),
        (["--num-train-epochs=3"], "--num_train_epochs has no effect on a sweep"),
        (["--weight_ratio", 7], "--weight_ratio has no effect on a sweep: write --ratios instead."),
        (
            ["--resume_from_checkpoint", "x"],
            "--resume_from_checkpoint has no effect on a sweep, which resumes by itself",
        ),
        (["--search", "True", "--ratios", 1, 7], "--ratios has no effect with --search"),
        (["--search", "--num_ratios", 13], "--num_ratios has no effect with --search"),
        (["--max_legs", 6], "--max_legs has no effect without --search True"),
        (["--quick", "True", "--ratios", 1, 7], "--ratios has no effect with --quick"),
        (["--quick", "True", "--num_ratios", 5], "--num_ratios has no effect with --ratios or --quick"),
        (["--search", "True", "--quick", "True"], "--quick has no effect with --search"),
        (["--threshold", "argmax"], "--threshold has no effect without --choose: add it"),
        (["--test_size", 1.5], "--test_size must be between 0 and 1, such as 0.2, got 1.5"),
        (["--choose", "flagged<=200"], "must have a number above 0 and up to 1"),
        (["--ratios", 1, 7, "--ratio_span", 100], "--ratio_span has no effect with --ratios"),
        (["--gpus_per_trial", 1], "--gpus_per_trial has no effect without --backend ray: add it."),
        (["--search", "--backend", "ray"], "--search fine-tunes at one ratio after the other"),
        (["--search", "--max_legs", 1], "max_legs"),
        (["--ratios", 0], "'0'"),
        (["--ratios", "nan"], "'nan'"),
        (["--ratios", "natral"], "'natral'"),
        (["--num_ratios", 1], "num_ratios"),
        (["--ratio_span", 0.5], "ratio_span"),
        (["--seeds", -1], "seed"),
        (["--epochs_per_ratio", 0], "epochs_per_ratio"),
        (["--choose", "recal>=0.9"], "recal>=0.9"),
        (["--max_steps", 0], "--max_steps must be at least 1, got 0."),
        (["--per_device_train_batch_size", 0], "--per_device_train_batch_size must be at least 1, got 0."),
        (["--per_device_eval_batch_size", -8], "--per_device_eval_batch_size must be at least 1, got -8."),
        (["--gradient_accumulation_steps", 0], "--gradient_accumulation_steps must be at least 1, got 0."),
        (["--max_seq_length", 0], "--max_seq_length must be at least 1, got 0."),
        (["--label_column_name", "label"], "--label_column_name has no effect on the built-in sentences"),
        (["--dataset_name", "imdb", "--train_file", "x.csv"], "--dataset_name has no effect on files"),
    ],
)
def test_a_sweep_refuses_flags_that_cannot_work_before_it_loads_data(no_data, tmp_path, words, sentence):
    message = ended("sweep", *words, "--output_dir", tmp_path / "out")
    assert message.startswith("error: ")
    assert sentence in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--weight_ratio", 0], "weight ratio"),
        (["--weight_ratio", "natral"], "'natral'"),
        (["--num_train_epochs", 0], "--num_train_epochs must be above 0, got 0."),
        (["--max_steps", -5], "--max_steps must be at least 1, got -5."),
        (["--class_weights", "{spam: 3}"], "class_weights='{spam: 3}'"),
        (["--load_best_model_at_end", "True"], "add --eval_strategy epoch --save_strategy epoch"),
        (["--load_best_model_at_end", "--save_strategy", "epoch"], "save and eval strategy"),
        (["--text_column_names", "sms"], "--text_column_names has no effect on the built-in sentences"),
    ],
)
def test_a_training_refuses_flags_that_cannot_work_before_it_loads_data(no_data, tmp_path, words, sentence):
    message = ended("train", *words, "--output_dir", tmp_path / "out")
    assert message.startswith("error: ")
    assert sentence in message
    assert "\n" not in message


@pytest.mark.parametrize("command", ["sweep", "train"])
@pytest.mark.parametrize("kind", ["file", "below a file", "/proc"])
def test_an_output_folder_that_cannot_be_written_to_is_refused_in_one_sentence(no_data, tmp_path, command, kind):
    (tmp_path / "file").write_text("mine")
    folder = {"file": tmp_path / "file", "below a file": tmp_path / "file" / "out", "/proc": Path("/proc/out")}[kind]
    message = ended(command, "--output_dir", folder)
    assert message.startswith(f"error: the folder {folder} cannot be written to (")
    assert message.endswith("): give another --output_dir.")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_command_that_cannot_read_its_data_leaves_no_folder(tmp_path):
    message = ended("sweep", "--train_file", tmp_path / "missing.csv", "--output_dir", tmp_path / "new" / "out")
    assert "there is no file" in message
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_output_folder_is_refused(no_data, tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    assert "cannot be written to (Permission denied)" in ended("train", "--output_dir", tmp_path / "out")


@pytest.mark.parametrize("command", ["sweep", "train"])
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("README.md", "# My project"),
        ("model.safetensors", "weights of somebody else"),
        ("config.json", '{"model_type": "bert"}'),
        ("config.json", "not JSON"),
        ("config.json", "[]"),
    ],
)
def test_files_that_weighloss_did_not_write_are_not_overwritten(no_data, tmp_path, command, file, content):
    (tmp_path / file).write_text(content)
    message = ended(command, "--output_dir", tmp_path)
    assert message == (
        f"error: {tmp_path / file} would be overwritten, and weighloss did not write it: give another --output_dir."
    )
    assert (tmp_path / file).read_text() == content


@pytest.mark.parametrize("own", [("config.json", '{"weight_ratio": 7}'), ("class_weights.json", "{}")])
def test_the_output_of_an_earlier_training_may_be_overwritten(tmp_path, own):
    from weighloss import WeightedLossConfig

    (tmp_path / "README.md").write_text("# A card")
    (tmp_path / own[0]).write_text(own[1])
    check_training(WeightedLossConfig(str(tmp_path)), DataArguments(), ())


def test_a_training_into_the_folder_of_a_sweep_is_refused(no_data, tmp_path):
    (tmp_path / "sweep.json").write_text("{}")
    assert "holds a sweep, whose model would be overwritten: give another" in ended("train", "--output_dir", tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_flag_ends_with_usage_and_its_name(command, capsys):
    needed = {"plot": ["out"], "push": ["out", "--hub_model_id", "user/spam"]}.get(command, [])
    assert ended(command, *needed, "--no_such_flag", 7) == 2
    assert "unrecognized arguments: --no_such_flag 7\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "meant"), [("--max_length", "--max_seq_length"), ("--text_column_name", "--text_column_names")]
)
def test_a_flag_that_is_nearly_right_is_named(flag, meant, capsys):
    assert ended("sweep", flag, 7) == 2
    assert f"unrecognized arguments: {flag} 7 (did you mean {meant}?)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["--train_file", "a.csv", "b.csv"], ["--choose", "cost", "fp=1", "fn=20"], ["--learning_rate", "1e-4", "2e-4"]],
)
def test_a_second_value_of_a_flag_is_said_to_be_one_too_many(words, capsys):
    assert ended("sweep", *words) == 2
    assert f"{' '.join(words[2:])} (give a flag one value, and quote one with blanks)" in capsys.readouterr().err


def test_abbreviated_flags_are_unknown(capsys):
    assert ended("sweep", "--num_train", 3) == 2
    assert "unrecognized arguments: --num_train 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [["--hub_token", "hf_secret"], ["--hub_token=hf_secret"], ["--hub-token", "hf_secret"], ["--token", "hf_secret"]],
)
def test_a_token_is_not_in_the_command_that_starts_again(monkeypatch, capsys, flags):
    monkeypatch.setattr("sys.argv", ["train.py", *flags, "--output_dir", "a b"])
    for argv, name in ((None, "train.py"), (sys.argv[1:], "weighloss train")):
        with pytest.raises(SystemExit) as end, Command("train", argv).ends_in_one_sentence():
            os.kill(os.getpid(), signal.SIGTERM)
        shown = capsys.readouterr().err
        assert end.value.code == 128 + signal.SIGTERM
        assert "stopped; to start again, run " in shown
        assert f"{name} --" in shown
        assert shown.rstrip().endswith("*** --output_dir 'a b'")
        assert "hf_secret" not in shown


def test_a_token_is_not_in_the_message_about_unknown_flags(capsys):
    assert ended("push", "out", "--hub_model_id", "user/spam", "--token", "hf_secret", "--hub_t=hf_secret") == 2
    shown = capsys.readouterr().err
    assert "--token *** --hub_t=***" in shown
    assert "hf_secret" not in shown


def test_a_stopped_training_names_its_last_complete_checkpoint(tmp_path, capsys):
    for step in (3, 12, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (3, 12):  # at 20 it was being written
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    with pytest.raises(SystemExit), Command("train", []).ends_in_one_sentence(checkpoints_in=str(tmp_path)):
        os.kill(os.getpid(), signal.SIGINT)
    shown = capsys.readouterr().err.rstrip()
    assert shown.endswith(f"to resume, run weighloss train --resume_from_checkpoint {tmp_path / 'checkpoint-12'}")


def test_a_stopped_command_leaves_the_signals_as_they_were():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit), Command("sweep", []).ends_in_one_sentence(goes_on=True):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_full_disk_ends_in_one_sentence_with_the_file():
    command = Command("sweep", [])
    with pytest.raises(SystemExit, match="no room is left to write out/model: "), command.ends_in_one_sentence():
        raise OSError(28, "No space left on device", "out/model")


def test_an_error_of_the_program_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), Command("sweep", []).ends_in_one_sentence():
        _ = 1 / 0


def test_a_sweep_that_is_not_there_cannot_be_drawn(tmp_path):
    assert ended("plot", tmp_path).startswith("error: there is no sweep at")
    (tmp_path / "file").write_text("")
    assert ended("plot", tmp_path / "file").startswith("error: ")


@pytest.mark.parametrize("name", ["binary", "several_classes", "several_labels", "three_seeds"])
def test_a_sweep_that_was_pushed_without_predictions_is_drawn(tmp_path, capsys, name):
    shutil.copy(GOLDEN / name / "sweep.json", tmp_path)
    main(["plot", str(tmp_path)])
    printed = capsys.readouterr().out
    sweep = RatioSweep.load(tmp_path)
    assert reports.table(sweep) in printed
    assert f"The charts are in {tmp_path}" in printed
    for chart in ("precision_recall.png", "precision_recall_plane.svg", "report.html"):
        assert (tmp_path / chart).stat().st_size > 5000
    assert str(ended("plot", tmp_path, "--metrics", "f1")).startswith("error: ")  # a metric needs them


def test_a_folder_that_is_not_there_cannot_be_pushed(tmp_path):
    assert ended("push", tmp_path / "no", "--hub_model_id", "user/spam").startswith(
        f"error: there is no folder {tmp_path / 'no'}"
    )
