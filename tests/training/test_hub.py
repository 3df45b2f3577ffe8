import copy
import json
import os
import pickle
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard

from conftest import collate, make_model, quiet_args
from loopback_hub import LoopbackHub
from weighloss import RatioSweep, WeightedLossConfig, WeightedLossTrainer
from weighloss.training.hub import Secret

TOKEN = "hf_nobodyMaySee"
READER = "hf_onlyReads"
MESSAGES = {
    "train": [(f"win {i} pounds now", "spam") if i % 5 == 0 else (f"see you at {i} then", "ham") for i in range(120)],
    "validation": [(f"win {i} now", "spam") if i % 4 == 0 else (f"at {i} then", "ham") for i in range(40)],
    "test": [(f"you win {i}", "spam") if i % 3 == 0 else (f"not at {i}", "ham") for i in range(30)],
}
CHARTS = [f"precision_recall{kind}" for kind in (".png", ".svg", "_plane.png", "_plane.svg")]
SMALL = ["--ratios", "1", "9", "--learning_rate", "1e-3", "--disable_tqdm", "True"]


def csv(split: str) -> bytes:
    return "\n".join(["sms,label", *(f"{text},{label}" for text, label in MESSAGES[split])]).encode() + b"\n"


@pytest.fixture
def hub(small_model):
    with LoopbackHub(tokens={TOKEN: "user", READER: "user"}, read_only=[READER]) as hub:
        hub.add("user/tiny", {file.name: file.read_bytes() for file in Path(small_model).iterdir()})
        hub.add("datasets/user/sms", {f"{split}.csv": csv(split) for split in MESSAGES}, private=True)
        yield hub


def run(
    hub: LoopbackHub, folder: Path, *command: object, token: str | None = None, **variables: str
) -> subprocess.CompletedProcess:
    """A client in a process and cache of its own."""
    environment = hub.env(folder, token) | {"OMP_NUM_THREADS": "1"} | variables
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def named_command(message: str) -> list[str]:
    """The words after `weighloss` of the command that a message names."""
    command, *words = shlex.split(re.search(r"`(weighloss [^`]+)`", message)[1])
    assert command == "weighloss"
    return words


def assert_no_token(folder: Path, printed: str) -> None:
    assert TOKEN not in printed
    for file in folder.rglob("*"):
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes(), file


BACK = """
import json, sys
sys.modules["weighloss"] = None
from transformers import pipeline
texts, classify = json.loads(sys.argv[1]), pipeline("text-classification", "user/spam")
print(json.dumps([[part["score"] for part in sorted(found, key=lambda part: part["label"])]
                  for found in classify(texts, top_k=None)]))

del sys.modules["weighloss"]
from weighloss import RatioSweep, plot_sweep
plot_sweep(RatioSweep.from_hub("user/spam"), sys.argv[2])
"""


@pytest.mark.slow
def test_from_a_data_set_on_the_hub_to_a_model_on_the_hub_and_back(hub, tmp_path):
    """With a push that fails at the last request, and is made good by the command that the message names."""
    hub.fail("POST", "/commit/", status=500)
    swept = run(
        hub, tmp_path, "-m", "weighloss", "sweep", "--dataset_name", "user/sms", "--model_name_or_path", "user/tiny",
        "--text_column_names", "sms", "--positive_label", "spam", "--test_split_name", "test", "--output_dir", "out",
        "--push_to_hub", "--hub_model_id", "user/spam", "--push_predictions", "--token", TOKEN, *SMALL,
        "--choose", "recall>=0.7",
    )  # fmt: skip
    assert swept.returncode == 1
    assert "Traceback" not in swept.stderr
    assert "out was not pushed to user/spam (Server error '500 Internal Server Error'" in swept.stderr
    assert "w_r x natural" in " ".join(swept.stdout.split())
    sweep = RatioSweep.load(tmp_path / "out")
    assert [point.ratio for point in sweep.points] == [1, 9]
    rule = sweep.operating_point
    assert sweep.kept_because == "chosen for recall>=0.7"
    assert rule == sweep.choose().point
    assert rule.threshold
    assert hub.files("user/spam").keys() == {".gitattributes"}

    pushed = run(hub, tmp_path, "-m", "weighloss", *named_command(swept.stderr), token=TOKEN)
    assert (pushed.returncode, pushed.stdout) == (0, "Pushed to user/spam.\n"), pushed.stderr
    assert not hub.unknown
    assert_no_token(tmp_path, swept.stdout + swept.stderr)
    files = hub.files("user/spam")
    assert {*CHARTS, "sweep.json", "README.md", "config.json", "model.safetensors", "tokenizer.json"} <= files.keys()
    assert {point.predictions for point in sweep.points} <= files.keys()
    assert not [name for name in files if "checkpoint" in name or name.endswith(".bin")]
    assert TOKEN.encode() not in b"".join(files.values())

    texts = [text for text, _ in MESSAGES["validation"]]
    back = run(hub, tmp_path / "out", "-c", BACK, json.dumps(texts), tmp_path / "redrawn")
    assert back.returncode == 0, back.stderr
    kept, _ = sweep.predictions(rule.leg)
    found, moved = np.array(json.loads(back.stdout)), np.exp(kept - [0, rule.threshold])
    assert np.abs(found - moved / moved.sum(axis=1, keepdims=True)).max() < 1e-6
    assert np.array_equal(
        found.argmax(axis=1), kept[:, 1] - kept[:, 0] > rule.threshold
    )  # the chosen rule, everywhere

    for chart in CHARTS:
        assert (tmp_path / "redrawn" / chart).read_bytes() == files[chart] == (tmp_path / "out" / chart).read_bytes()

    card = ModelCard((tmp_path / "out" / "README.md").read_text())
    assert card.data.datasets == ["user/sms"]
    assert card.data.base_model == "user/tiny"
    assert {result.dataset_split for result in card.data.eval_results} == {"validation", "test"}
    assert "held-out" in card.text
    assert "| `num_epochs` | 1 |" in card.text
    assert card.text.index("## Limits") < card.text.index("## Training procedure")


# One process for many cases: importing takes longer than all of them. Each case is a line of standard input.
CASES = """
import io, json, os, sys, time
from contextlib import redirect_stderr, redirect_stdout
time.sleep = lambda seconds: None  # the client's waits between its tries
from weighloss import InvalidInputError, PushError, RatioSweep, push_folder
from weighloss.cli.arguments import DataArguments
from weighloss.cli.data import load_data
from weighloss.cli.main import main
def command(words, folder, token):
    output, status = io.StringIO(), 0
    os.chdir(folder)
    os.environ["HF_TOKEN"] = token or ""
    with redirect_stdout(output), redirect_stderr(output):
        try:
            main(words)
        except SystemExit as end:
            status = end.code
    os.environ["HF_TOKEN"] = ""
    return status, output.getvalue()
print("ready", flush=True)
for line in sys.stdin:
    name, arguments = json.loads(line)
    case = {
        "command": lambda: command(**arguments),
        "push": lambda: push_folder(**arguments),
        "from_hub": lambda: len(RatioSweep.from_hub(**arguments).points),
        "load": lambda: {split: len(part) for split, part in
                         load_data(DataArguments(text_column_names="sms", **arguments["data"]), None,
                                   arguments.get("token")).items()},
    }[name]
    try:
        answer = ["done", case()]
    except (InvalidInputError, PushError) as error:
        answer = [type(error).__name__, str(error)]
    print("answer", json.dumps(answer, default=str), flush=True)
"""


class Client:
    def __init__(self, hub: LoopbackHub, folder: Path) -> None:
        self.hub = hub
        self.process = subprocess.Popen(
            [sys.executable, "-c", CASES], env=hub.env(folder), cwd=folder, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def __call__(self, name: str, **arguments: object) -> tuple[str, object]:
        self.process.stdin.write(json.dumps([name, arguments]) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("answer "):
                return tuple(json.loads(line.removeprefix("answer ")))
        raise AssertionError("the client has ended")

    def command(self, *words: object, folder: Path, token: str | None = None) -> list:
        """Run `weighloss` there. Returns its exit status, or the message that it ends with, and what it printed."""
        return self("command", words=list(map(str, words)), folder=str(folder), token=token)[1]


@pytest.fixture(scope="module")
def client(tmp_path_factory, small_model):
    with LoopbackHub(tokens={TOKEN: "user", READER: "user"}, read_only=[READER]) as hub:
        data = {f"{split}.csv": csv(split) for split in MESSAGES}
        hub.add("datasets/user/private", data, private=True)
        hub.add("datasets/user/secret", data, private=True)
        hub.add("datasets/user/only_train", {"train.csv": csv("train")})
        first = hub.add("datasets/user/changing", {"train.csv": csv("test")})
        hub.add("datasets/user/changing", {"train.csv": csv("train")})
        configs = "---\nconfigs:\n- config_name: a\n  data_files: a.csv\n- config_name: b\n  data_files: b.csv\n---\n"
        hub.add("datasets/user/configs", {"README.md": configs.encode(), "a.csv": csv("train"), "b.csv": csv("test")})
        hub.add("user/tiny", {file.name: file.read_bytes() for file in Path(small_model).iterdir()})
        hub.tag("user/tiny", "v1")
        hub.add("user/tiny", {"config.json": b"no longer a config"})
        client = Client(hub, tmp_path_factory.mktemp("client"))
        client.first = first
        yield client
        client.process.terminate()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "splits"),
    [
        ({"dataset_name": "user/only_train"}, {"train": 96, "validation": 24}),
        ({"dataset_name": "user/configs", "dataset_config_name": "b"}, {"train": 24, "validation": 6}),
        ({"dataset_name": "user/changing"}, {"train": 96, "validation": 24}),
        ({"dataset_name": "user/changing", "dataset_revision": "first"}, {"train": 24, "validation": 6}),
        ({"dataset_name": "user/private", "test_split_name": "test"}, {"train": 120, "validation": 40, "test": 30}),
    ],
    ids=["only_train", "config", "main", "revision", "private"],
)
def test_data_sets_of_the_hub_are_loaded(client, data, splits):
    if data.get("dataset_revision") == "first":
        data = data | {"dataset_revision": client.first}
    assert client("load", data=data, token=TOKEN) == ("done", splits)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "token", "sentence"),
    [
        ({"dataset_name": "user/secret"}, None, "user/secret cannot be loaded"),
        ({"dataset_name": "user/secret"}, "hf_unknown", "user/secret cannot be loaded"),
        ({"dataset_name": "user/nowhere"}, TOKEN, "user/nowhere cannot be loaded"),
        ({"dataset_name": "user/configs"}, TOKEN, "user/configs cannot be loaded"),
        ({"dataset_name": "user/configs", "dataset_config_name": "c"}, TOKEN, "user/configs cannot be loaded"),
        ({"dataset_name": "user/only_train", "validation_split_name": "dev"}, TOKEN, "has no split 'dev'"),
    ],
)
def test_data_sets_that_cannot_be_loaded_are_refused_in_one_sentence(client, data, token, sentence):
    kind, message = client("load", data=data, token=token)
    assert kind == "InvalidInputError"
    assert sentence in message
    assert "\n" not in message
    assert "hf_" not in message


@pytest.fixture
def output(tmp_path):
    folder = tmp_path / "output"
    (folder / "predictions").mkdir(parents=True)
    (folder / "checkpoint-7").mkdir()
    files = ("README.md", "model.safetensors", "sweep.json", "training_args.bin", ".sweep.json.tmp")
    for name in (
        *files,
        "predictions/leg-00.parquet",
        "predictions/.leg-01.parquet.tmp",
        "checkpoint-7/model.safetensors",
    ):
        (folder / name).write_text(f"the content of {name} {os.urandom(4).hex()}")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("predictions", [False, True])
def test_a_push_takes_predictions_when_asked_and_neither_checkpoints_nor_pickles(client, output, predictions):
    repo = f"user/push_{predictions}"
    assert client("push", folder=str(output), repo_id=repo, token=TOKEN, push_predictions=predictions)[0] == "done"
    names = {"README.md", "model.safetensors", "sweep.json", *(["predictions/leg-00.parquet"] if predictions else [])}
    found = client.hub.files(repo)
    assert found.keys() - {".gitattributes"} == names
    assert all(found[name] == (output / name).read_bytes() for name in names)


FAULTS = {
    "429": ("POST", "/commit/", {"status": 429, "headers": {"Retry-After": "1"}}),
    "500_commit": ("POST", "/commit/", {"status": 500}),
    "500_upload": ("PUT", "/lfs-storage/", {"status": 500, "times": 99}),
    "403": ("POST", "/commit/", {"status": 403}),
    "cut_upload": ("PUT", "/lfs-storage/", {"cut": True, "times": 99}),
    "cut_commit": ("POST", "/commit/", {"cut": True}),
    "cut_answer": ("POST", "/commit/", {"cut": "body"}),
    "unreachable": (".*", "", {"cut": True, "times": 99}),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_push_that_fails_names_the_command_that_pushes_again_and_pushing_again_succeeds(client, output, fault):
    method, path, how = FAULTS[fault]
    client.hub.fail(method, path, **how)
    kind, message = client("push", folder=str(output), repo_id=f"user/{fault}", token=TOKEN)
    client.hub.faults.clear()
    assert kind == "PushError"
    assert f"`weighloss push {output} --hub_model_id user/{fault}`" in message
    assert "\n" not in message
    assert TOKEN not in message
    assert "http" not in message  # an upload's address is signed
    assert client("push", folder=str(output), repo_id=f"user/{fault}", token=TOKEN)[0] == "done"
    assert client.hub.files(f"user/{fault}")["model.safetensors"] == (output / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("token", [READER, "hf_unknown", None])
def test_a_push_without_the_right_to_is_refused_in_one_sentence(client, output, token):
    kind, message = client("push", folder=str(output), repo_id="user/forbidden", token=token)
    assert kind == "PushError"
    assert re.search(r"40[13] (Unauthorized|Forbidden)", message)
    assert "\n" not in message
    assert "hf_" not in message


@pytest.mark.slow
@pytest.mark.parametrize("newline", ["", "\n"])  # open("token").read() has one
def test_a_token_is_in_no_message_and_may_end_a_line(client, output, newline):
    data = {"dataset_name": "user/private", "test_split_name": "test"}
    assert client("load", data=data, token=TOKEN + newline)[0] == "done" if not newline else True
    assert client("push", folder=str(output), repo_id="user/line", token=TOKEN + newline)[0] == "done"
    assert client("from_hub", repo_id="user/line", token=TOKEN + newline)[0] == "InvalidInputError"  # no sweep to read
    kind, message = client("push", folder=str(output), repo_id="user/line", token=f"{TOKEN}\nand more")
    assert kind == "PushError"
    assert TOKEN not in message


@pytest.mark.slow
def test_train_pushes_a_model_at_a_ratio_without_predictions(client, tmp_path):
    hub, unknown = client.hub, len(client.hub.unknown)
    status, printed = client.command(
        "train", "--dataset_name", "user/private", "--model_name_or_path", "user/tiny", "--text_column_names", "sms",
        "--positive_label", "spam", "--output_dir", "out", "--weight_ratio", "20", "--num_train_epochs", "2",
        "--push_to_hub", "--hub_model_id", "user/trained", "--hub_private_repo", "True", "--model_revision", "v1",
        "--disable_tqdm", "True", "--save_strategy", "epoch", folder=tmp_path, token=TOKEN,
    )  # fmt: skip
    assert status == 0
    assert_no_token(tmp_path, printed)
    assert hub.repos["user/trained"].private
    assert "training_args.bin" not in hub.files("user/trained")  # which the base class pushed with a checkpoint
    card = hub.files("user/trained")["README.md"].decode()
    assert "w_r = 20" in card
    assert "set by hand" in card
    assert hub.unknown[unknown:] == []


@pytest.mark.slow
def test_the_command_that_is_named_pushes_privately_to_its_branch_from_a_folder_with_spaces(client, output, tmp_path):
    folder = output.rename(tmp_path / "with spaces")
    given = {"private": True, "revision": "dev", "push_predictions": True, "token": TOKEN}
    client.hub.fail("POST", "/commit/", status=500)
    _, message = client("push", folder=str(folder), repo_id="again", **given)  # one's own namespace
    assert client.command(*named_command(message), folder=tmp_path, token=TOKEN) == [0, "Pushed to again.\n"]
    assert client.hub.repos["user/again"].private
    assert "model.safetensors" not in client.hub.files("user/again")
    assert "predictions/leg-00.parquet" in client.hub.files("user/again", "dev")


@pytest.mark.slow
def test_a_refused_push_ends_the_command_in_one_sentence(client, output, tmp_path):
    status, printed = client.command("push", output, "--hub_model_id", "user/refused", folder=tmp_path)
    assert status.startswith("error: ")
    assert "\n" not in status
    assert printed == ""
    words = ["push", output, "--hub_model_id", "user/refused", "--hub_token", TOKEN]
    assert client.command(*words, folder=tmp_path) == [0, "Pushed to user/refused.\n"]
    assert "README.md" in client.hub.files("user/refused")


@pytest.mark.slow
def test_a_folder_that_is_not_there_makes_no_repository(client):
    kind, message = client("push", folder="nowhere", repo_id="user/nothing", token=TOKEN)
    assert (kind, "no folder nowhere" in message) == ("InvalidInputError", True)
    assert "user/nothing" not in client.hub.repos


@pytest.mark.slow
@pytest.mark.parametrize("name", ["output", "named", "user/before"])
def test_a_card_that_calls_the_model_otherwise_is_given_its_name(client, output, name):
    (output / "README.md").write_text(f'classify = pipeline("text-classification", model="{name}")\n')
    client("push", folder=str(output), repo_id="user/named", token=TOKEN)
    assert b'model="user/named"' in client.hub.files("user/named")["README.md"]


@pytest.mark.slow
def test_a_repository_without_a_sweep_is_refused_in_one_sentence(client):
    client.hub.add("user/plain", {"README.md": b"# plain"})
    for repo in ("user/plain", "user/nowhere"):
        kind, message = client("from_hub", repo_id=repo)
        assert kind == "InvalidInputError"
        assert "\n" not in message


@pytest.mark.slow
def test_a_hub_that_cannot_be_reached_is_said_before_any_training(client, tmp_path, small_model):
    (tmp_path / "spam.csv").write_bytes(csv("train"))
    client.hub.fail(".*", "", cut=True, times=99)
    status, printed = client.command(
        "sweep", "--train_file", "spam.csv", "--model_name_or_path", small_model, "--text_column_names", "sms",
        "--output_dir", "out", "--push_to_hub", "--hub_model_id", "user/spam", "--hub_token", TOKEN, *SMALL,
        folder=tmp_path,
    )  # fmt: skip
    client.hub.faults.clear()
    assert "\n" not in status
    assert "the repository user/spam cannot be created on the Hub" in status
    assert "weighloss push out --hub_model_id user/spam" in status
    assert "'loss'" not in printed
    assert "w_r" not in printed
    assert not list(tmp_path.glob("out/predictions/*"))
    assert_no_token(tmp_path, status + printed)


def test_a_token_pickles_as_none_and_is_printed_as_asterisks():
    token = Secret(TOKEN)
    assert token == TOKEN
    assert copy.deepcopy(token) == TOKEN
    assert pickle.loads(pickle.dumps({"token": token})) == {"token": None}
    assert TOKEN not in repr([token])


def test_arguments_do_not_show_their_token():
    assert TOKEN not in repr(WeightedLossConfig("out", hub_token=TOKEN)) + str(
        WeightedLossConfig("out", hub_token=TOKEN)
    )


def test_saved_training_arguments_hold_no_token(tmp_path, train_data):
    args = WeightedLossConfig(str(tmp_path), hub_token=TOKEN, **quiet_args())
    WeightedLossTrainer(model=make_model(), args=args, train_dataset=train_data, data_collator=collate).save_model()
    assert TOKEN.encode() not in (tmp_path / "training_args.bin").read_bytes()
    assert args.hub_token == TOKEN
