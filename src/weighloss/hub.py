from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, HfApi, ModelCard
from transformers import Trainer

from .card import complete_card
from .errors import PushError, reason
from .record import PREDICTIONS_FOLDER

# Those of the Trainer, and its pickled arguments: nobody should have to unpickle what they download.
_NOT_PUSHED = ["_*", "checkpoint-*", "training_args.bin", ".*.tmp"]


class Secret(str):
    """A token that is written to no file and shown in no message: it pickles as None and prints as asterisks."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return type(None), ()

    def __deepcopy__(self, memo: Any) -> Secret:
        return self

    def __repr__(self) -> str:
        return "'***'"


class HubTrainer(Trainer):
    """A `Trainer` whose model card says how the classes were weighted, and which pushes what a sweep left on disk."""

    args: Any
    model: Any
    hub_model_id: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.hub_token:
            self.args.hub_token = Secret(
                self.args.hub_token
            )  # the base class pickles its arguments beside every model

    def card_facts(self) -> dict[str, Any]:
        """The arguments of `complete_card` that are about the weighting."""
        raise NotImplementedError

    def create_model_card(self, **kwargs: Any) -> None:  # type: ignore[override]
        """As `Trainer.create_model_card`, with the weighting, the sweep, the figures, and how to use the model.

        `dataset` is the data's name, `dataset_tags` its id on the Hub. Without a push nothing is asked of the Hub.
        """
        if not self.is_world_process_zero():
            return
        dataset, dataset_id = kwargs.pop("dataset", None), kwargs.pop("dataset_tags", None)
        if self.hub_model_id is None:
            kwargs.setdefault("license", "")  # else the base class asks the Hub for that of the base model
        super().create_model_card(**kwargs, dataset_tags=[])
        facts, folder = self.card_facts(), Path(self.args.output_dir)
        chart = folder / "precision_recall.png"
        complete_card(
            ModelCard.load(folder / "README.md"),
            name=self.hub_model_id or folder.name,
            model=self.accelerator.unwrap_model(self.model),
            chart=chart.name if chart.exists() else None,
            dataset=dataset or (facts["sweep"].dataset if facts["sweep"] else None),
            dataset_id=dataset_id,
            **facts,
        ).save(folder / "README.md")

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """As `Trainer.init_hf_repo`; what the Hub refuses is said in one sentence, before any training."""
        try:
            super().init_hf_repo(token, private)
        except Exception as error:  # whatever the client raises
            name = self.args.hub_model_id or Path(self.args.output_dir).name
            raise PushError(
                f"the repository {name} cannot be made on the Hub ({reason(error)}): check its name, the login and the "
                "network, or leave push_to_hub out and push the folder afterwards with "
                f"`python scripts/push.py {self.args.output_dir} --hub_model_id {name}`."
            ) from error

    def push_to_hub(  # type: ignore[override]
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        push_predictions: bool = False,
        **kwargs: Any,
    ) -> CommitInfo | None:
        """As `Trainer.push_to_hub`: the model that the trainer holds, its card, charts and `sweep.json`.

        The sweep's predictions go along when asked; checkpoints and pickles never do. It always waits for the Hub.

        Raises
        ------
        PushError
            When the Hub refuses or cannot be reached; the folder has everything, and the message how to push it again.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.save_model(_internal_call=True)
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        if not self.is_world_process_zero():
            return None
        repo_id = str(self.hub_model_id)
        tags = [*kwargs.pop("tags", ()), *(getattr(self.model, "model_tags", None) or ())]
        self.create_model_card(model_name=kwargs.pop("model_name", repo_id.split("/")[-1]), tags=tags, **kwargs)
        self._finish_current_push()
        return push_folder(
            self.args.output_dir,
            repo_id,
            token=token or self.args.hub_token,
            private=self.args.hub_private_repo if private is None else private,
            revision=revision or self.args.hub_revision,
            commit_message=commit_message or "End of training",
            push_predictions=push_predictions,
        )


def push_folder(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    token: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "End of training",
    push_predictions: bool = False,
) -> CommitInfo:
    """Push an output folder, with model, card, charts and sweep, to a model repository of the Hub.

    Checkpoints and the Trainer's pickled arguments stay where they are. Pushing again is safe: what is there already is
    not uploaded a second time.

    Parameters
    ----------
    folder : path
    repo_id : str
        `user/model`; made where it does not exist.
    token : str, optional
        That of `hf auth login` or of the variable HF_TOKEN when None.
    private : bool, optional
        Whether a repository that is made is private.
    revision : str, optional
        Branch to push to.
    commit_message : str
    push_predictions : bool, default False
        Whether the evaluation set's logits and labels go along: `RatioSweep.from_hub` then has every figure.

    Raises
    ------
    PushError
        When the Hub refuses or cannot be reached; it says how to push again.
    """
    ignored = _NOT_PUSHED if push_predictions else [*_NOT_PUSHED, f"{PREDICTIONS_FOLDER}/*"]
    try:
        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        return api.upload_folder(
            repo_id=repo_id,
            folder_path=Path(folder),
            commit_message=commit_message,
            revision=revision,
            ignore_patterns=ignored,
        )
    except Exception as error:  # whatever the client raises: what was computed is in the folder
        flag, argument = (" --push_predictions", ", push_predictions=True") if push_predictions else ("", "")
        raise PushError(
            f"{folder} was not pushed to {repo_id} ({reason(error)}): everything is in the folder; check login and network "
            f"and push it again with `python scripts/push.py {folder} --hub_model_id {repo_id}{flag}`, or in Python with "
            f"weighloss.push_folder({str(folder)!r}, {repo_id!r}{argument})."
        ) from error
