import numpy as np
import pytest
from sklearn.metrics import precision_score
from transformers import BertConfig

from weighloss.weighting.task import Task


@pytest.mark.parametrize(
    ("config", "task"),
    [
        ({"num_labels": 2}, Task.BINARY),
        ({"num_labels": 2, "problem_type": "single_label_classification"}, Task.BINARY),
        ({"num_labels": 3}, Task.MULTICLASS),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, Task.MULTILABEL),
        ({"num_labels": 2, "problem_type": "multi_label_classification"}, Task.MULTILABEL),
        ({"num_labels": 1, "problem_type": "multi_label_classification"}, Task.MULTILABEL),
    ],
)
def test_the_configuration_of_a_model_decides_its_task(config, task):
    assert Task.of_model(BertConfig(**config)) is task


def test_a_task_is_written_as_its_word():
    assert [Task(word) for word in ("binary", "multiclass", "multilabel")] == list(Task)


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        (Task.BINARY, np.array([0, 1, 1])),
        (Task.MULTICLASS, np.array([0, 1, 2])),
        (Task.MULTILABEL, np.array([[0, 1], [1, 0], [1, 1]])),
    ],
)
def test_scikit_learn_averages_the_labels_of_a_task_by_its_average(task, labels):
    assert precision_score(labels, labels, average=task.average) == 1
