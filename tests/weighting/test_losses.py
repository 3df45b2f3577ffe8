import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from transformers.trainer_pt_utils import LabelSmoother

from weighloss.errors import InvalidInputError
from weighloss.weighting.class_weights import ClassWeights
from weighloss.weighting.losses import calibrated_logits, weighted_binary_cross_entropy, weighted_cross_entropy


def batch(seed: int, size: int, classes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, classes, generator=generator, dtype=torch.float64) * 3
    labels = torch.randint(classes, (size,), generator=generator)
    weights = torch.rand(classes, generator=generator, dtype=torch.float64) * 10 + 0.01
    return logits, labels, weights


def reference(logits, labels, weights, smoothing=0.0) -> float:
    """The formula in float64 numpy and scipy."""
    logits, labels, weights = (np.asarray(array) for array in (logits, labels, weights))
    kept = labels != -100
    log_p = log_softmax(logits[kept].astype(np.float64), axis=-1)
    own = -log_p[np.arange(kept.sum()), labels[kept]]
    return float((weights[labels[kept]] * ((1 - smoothing) * own - smoothing * log_p.mean(-1))).sum() / kept.sum())


@given(seed=st.integers(0, 10**6), size=st.integers(1, 40), classes=st.integers(2, 6), smoothing=st.floats(0, 0.5))
@settings(deadline=None)
def test_the_loss_is_the_formula(seed, size, classes, smoothing):
    logits, labels, weights = batch(seed, size, classes)
    loss = weighted_cross_entropy(logits, labels, weights, label_smoothing=smoothing)
    assert loss.item() == pytest.approx(reference(logits, labels, weights, smoothing), rel=1e-9)


@given(seed=st.integers(0, 10**6), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6))
@settings(deadline=None)
def test_cutting_a_step_into_micro_batches_changes_nothing(seed, sizes):
    logits, labels, weights = batch(seed, sum(sizes), 3)
    parts = zip(logits.split(sizes), labels.split(sizes), strict=True)
    cut = sum(weighted_cross_entropy(x, y, weights, num_items=sum(sizes)) for x, y in parts)
    assert cut.item() == pytest.approx(reference(logits, labels, weights), rel=1e-9)


def test_torchs_own_weighted_mean_loses_its_weights_in_single_item_micro_batches():
    logits, labels, weights = batch(0, 16, 2)
    logits.requires_grad_()
    plain = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, labels), logits)[0]
    torchs = sum(
        torch.nn.functional.cross_entropy(logits[i : i + 1], labels[i : i + 1], weight=weights) / 16 for i in range(16)
    )
    ours = sum(weighted_cross_entropy(logits[i : i + 1], labels[i : i + 1], weights, num_items=16) for i in range(16))
    assert torch.allclose(torch.autograd.grad(torchs, logits, retain_graph=True)[0], plain)
    weighted = torch.autograd.grad(ours, logits)[0]
    assert torch.allclose(weighted, plain * weights[labels][:, None])


def test_unweighted_it_is_torchs_cross_entropy_in_loss_and_gradient():
    logits, labels, _ = batch(1, 32, 4)
    logits = logits.float().requires_grad_()
    ours = weighted_cross_entropy(logits, labels, torch.ones(4))
    torchs = torch.nn.functional.cross_entropy(logits, labels)
    assert ours.item() == pytest.approx(torchs.item(), rel=1e-6)
    difference = torch.autograd.grad(ours, logits)[0] - torch.autograd.grad(torchs, logits)[0]
    assert difference.abs().max() < 1e-7


def test_unweighted_label_smoothing_is_the_trainers():
    logits, labels, _ = batch(2, 32, 4)
    labels[::5] = -100
    ours = weighted_cross_entropy(logits, labels, torch.ones(4), label_smoothing=0.1)
    trainers = LabelSmoother(epsilon=0.1)({"logits": logits}, labels.clone())
    assert ours.item() == pytest.approx(trainers.item(), rel=1e-6)


def test_labels_of_minus_100_count_neither_above_nor_below_the_line():
    logits, labels, weights = batch(3, 24, 3)
    ignored = labels.clone()
    ignored[10:] = -100
    shaped = weighted_cross_entropy(logits.reshape(4, 6, 3), ignored.reshape(4, 6), weights)
    assert shaped.item() == pytest.approx(reference(logits[:10], labels[:10], weights), rel=1e-9)


def test_a_batch_in_which_no_label_counts_has_loss_and_gradient_zero():
    logits = torch.randn(4, 2, requires_grad=True)
    loss = weighted_cross_entropy(logits, torch.full((4,), -100), torch.ones(2))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_loss_of_low_precision_logits_is_computed_in_float32(dtype):
    logits, labels, weights = batch(4, 512, 2)
    low = logits.to(dtype)
    loss = weighted_cross_entropy(low, labels, weights.float())
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(reference(low.double(), labels, weights), rel=1e-6)


def test_calibrated_logits_give_the_probabilities_of_the_population_and_weighted_ones_do_not():
    """Two Gaussians of equal spread: the true posterior is a logistic function, so that a logistic regression fits it."""
    generator = np.random.default_rng(0)
    labels = (generator.random(60_000) < 0.12).astype(int)
    features = generator.normal(labels[:, None] * [1.5, 0.5], 1)
    class_weights = ClassWeights.from_counts(np.bincount(labels), ratio=20)
    model = LogisticRegression(C=1e6, class_weight=dict(enumerate(class_weights.weights))).fit(features, labels)
    margin = torch.tensor(model.decision_function(features))
    weighted = torch.stack([torch.zeros_like(margin), margin], dim=-1)
    calibrated = calibrated_logits(weighted, torch.tensor(class_weights.weights))

    def calibration_error(logits):
        probabilities = logits.softmax(-1)[:, 1].numpy()
        bins = np.digitize(probabilities, np.linspace(0, 1, 16)[1:-1])
        gaps = [
            abs(probabilities[bins == b].mean() - labels[bins == b].mean()) * (bins == b).mean() for b in set(bins)
        ]
        return sum(gaps)

    assert calibration_error(weighted) > 0.2
    assert calibration_error(calibrated) < 0.02
    truth = scipy.stats.norm(0, 1)
    density = [share * truth.pdf(features - mean).prod(-1) for share, mean in ((0.88, [0, 0]), (0.12, [1.5, 0.5]))]
    posterior = density[1] / sum(density)
    assert np.abs(calibrated.softmax(-1)[:, 1].numpy() - posterior).mean() < 0.01


def test_logits_and_weights_of_different_numbers_of_classes_are_refused():
    with pytest.raises(InvalidInputError, match="num_labels=3"):
        weighted_cross_entropy(torch.randn(4, 2), torch.zeros(4, dtype=torch.long), torch.ones(3))
    with pytest.raises(InvalidInputError, match="num_labels=3"):
        calibrated_logits(torch.randn(4, 2), torch.ones(3))


def multi_label_batch(seed: int, size: int, labels: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    logits, _, _ = batch(seed, size, labels)
    generator = torch.Generator().manual_seed(seed)
    targets = (torch.rand(size, labels, generator=generator) < 0.3).double()
    return logits, targets, torch.rand(labels, 2, generator=generator, dtype=torch.float64) * 10 + 0.01


def torchs_binary_cross_entropy(logits, targets, weights, reduction="mean") -> torch.Tensor:
    return torch.nn.functional.binary_cross_entropy_with_logits(
        logits, targets, weight=weights[:, 0], pos_weight=weights[:, 1] / weights[:, 0], reduction=reduction
    )


@given(seed=st.integers(0, 10**6), size=st.integers(1, 40), labels=st.integers(1, 6))
@settings(deadline=None)
def test_the_loss_of_several_labels_is_torchs_with_pos_weight_up_to_the_negatives_weight(seed, size, labels):
    logits, targets, weights = multi_label_batch(seed, size, labels)
    torchs = torchs_binary_cross_entropy(logits, targets, weights)
    assert weighted_binary_cross_entropy(logits, targets, weights).item() == pytest.approx(torchs.item(), rel=1e-9)


@given(seed=st.integers(0, 10**6), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6))
@settings(deadline=None)
def test_cutting_a_step_of_several_labels_into_micro_batches_changes_nothing(seed, sizes):
    logits, targets, weights = multi_label_batch(seed, sum(sizes), 3)
    torchs = torchs_binary_cross_entropy(logits, targets, weights, reduction="none")
    torchs[0, 1], targets[0, 1] = 0, -100
    items = 3 * sum(sizes) - 1
    parts = zip(logits.split(sizes), targets.split(sizes), strict=True)
    cut = sum(weighted_binary_cross_entropy(x, y, weights, num_items=items) for x, y in parts)
    assert cut.item() == pytest.approx(torchs.sum().item() / items, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_loss_of_several_labels_is_computed_in_float32_for_labels_of_any_dtype(dtype):
    logits, targets, weights = multi_label_batch(4, 64, 3)
    expected = torchs_binary_cross_entropy(logits.to(dtype).double(), targets, weights)
    for kind in (torch.int64, torch.bool, dtype):
        loss = weighted_binary_cross_entropy(logits.to(dtype), targets.to(kind), weights.float())
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_calibrated_logits_of_several_labels_have_the_odds_of_the_population():
    counts = np.array([[900, 100], [300, 700]])
    class_weights = ClassWeights.from_multi_label_counts(counts, ratio=20).weights
    weighted_odds = counts[:, 1] * class_weights[:, 1] / (counts[:, 0] * class_weights[:, 0])
    calibrated = calibrated_logits(torch.tensor(np.log(weighted_odds)), torch.tensor(class_weights))
    assert calibrated.sigmoid().numpy() == pytest.approx([0.1, 0.7])


@pytest.mark.parametrize("shape", [(6,), (3, 2), (2, 3, 1, 1)])
def test_labels_that_do_not_fit_the_logits_are_refused(shape):
    labels = torch.zeros(shape, dtype=torch.long)
    with pytest.raises(InvalidInputError, match=r"do not fit logits of shape \(2, 3, 3\)"):
        weighted_cross_entropy(torch.zeros(2, 3, 3), labels, torch.ones(3))
    with pytest.raises(InvalidInputError, match=r"do not fit logits of shape \(2, 3\)"):
        weighted_binary_cross_entropy(torch.zeros(2, 3), labels, torch.ones(3, 2))


def test_labels_may_have_a_last_dimension_of_one():
    logits, labels, weights = batch(5, 8, 3)
    expected = pytest.approx(reference(logits, labels, weights), rel=1e-12)
    assert weighted_cross_entropy(logits, labels[:, None], weights).item() == expected
    items = weighted_cross_entropy(logits, labels[:, None], weights, reduction="none")
    assert items.shape == (8, 1)
    assert items.mean().item() == expected


def test_a_step_in_which_no_label_counts_has_loss_and_gradient_zero():
    for num_items in (None, 0, torch.tensor(0)):
        logits = torch.randn(4, 2, requires_grad=True)
        ignored = torch.full((4,), -100)
        losses = (
            weighted_cross_entropy(logits, ignored, torch.ones(2), num_items),
            weighted_binary_cross_entropy(logits, ignored[:, None].repeat(1, 2), torch.ones(2, 2), num_items),
        )
        for loss in losses:
            (gradient,) = torch.autograd.grad(loss, logits)
            assert loss.item() == 0
            assert (gradient == 0).all()


def test_soft_labels_have_torchs_loss():
    logits, _, weights = multi_label_batch(0, 8, 3)
    soft = torch.rand(8, 3, dtype=torch.float64)
    torchs = torchs_binary_cross_entropy(logits, soft, weights)
    assert weighted_binary_cross_entropy(logits, soft, weights).item() == pytest.approx(torchs.item(), rel=1e-9)


def test_several_labels_for_a_model_of_one_name_the_problem_type():
    with pytest.raises(InvalidInputError, match="problem_type='multi_label_classification'"):
        weighted_cross_entropy(torch.zeros(4, 3), torch.zeros(4, 3), torch.ones(3))


SIGNED = (torch.int8, torch.int16, torch.int32, torch.int64)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, *SIGNED])
@pytest.mark.parametrize("shape", [(12,), (3, 4), (12, 1)])
def test_labels_of_any_integer_dtype_have_the_loss_of_int64_ones(dtype, shape):
    logits, labels, weights = batch(6, 12, 2)
    logits = logits.reshape((*shape, 2) if shape[-1] > 1 else (12, 2))
    expected = reference(logits.reshape(12, 2), labels, weights, smoothing=0.1)
    loss = weighted_cross_entropy(logits, labels.to(dtype).reshape(shape), weights, label_smoothing=0.1)
    assert loss.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dtype", SIGNED)
def test_minus_100_does_not_count_in_any_signed_dtype(dtype):
    logits, labels, weights = batch(7, 12, 3)
    labels[::4] = -100
    expected = pytest.approx(reference(logits, labels, weights), rel=1e-9)
    assert weighted_cross_entropy(logits, labels.to(dtype), weights).item() == expected


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, *SIGNED, torch.float16, torch.bfloat16, torch.float64])
def test_several_labels_of_any_dtype_have_torchs_loss(dtype):
    logits, targets, weights = multi_label_batch(1, 16, 3)
    torchs = torchs_binary_cross_entropy(logits, targets, weights)
    loss = weighted_binary_cross_entropy(logits, targets.to(dtype), weights)
    assert loss.item() == pytest.approx(torchs.item(), rel=1e-9)


@pytest.mark.parametrize("dtype", [*SIGNED, torch.float16, torch.bfloat16, torch.float64])
def test_several_labels_of_minus_100_do_not_count_in_any_dtype(dtype):
    logits, targets, weights = multi_label_batch(2, 16, 3)
    counted = torch.rand(16, 3, generator=torch.Generator().manual_seed(0)) < 0.7
    torchs = torchs_binary_cross_entropy(logits, targets, weights, reduction="none")
    loss = weighted_binary_cross_entropy(logits, targets.where(counted, -100).to(dtype), weights)
    assert loss.item() == pytest.approx(torchs[counted].mean().item(), rel=1e-9)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_reduction_each_item_has_torchs_loss_times_its_weight(smoothing):
    logits, labels, weights = batch(8, 24, 3)
    labels[::5] = -100
    torchs = torch.nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    items = weighted_cross_entropy(
        logits.reshape(4, 6, 3), labels.reshape(4, 6), weights, label_smoothing=smoothing, reduction="none"
    )
    expected = torchs * weights[labels.clamp(min=0)]
    assert items.shape == (4, 6)
    assert torch.allclose(items.flatten(), expected)
    assert (items.flatten()[::5] == 0).all()


def test_without_reduction_each_of_several_labels_has_torchs_loss_with_pos_weight():
    logits, targets, weights = multi_label_batch(3, 16, 3)
    torchs = torchs_binary_cross_entropy(logits, targets, weights, reduction="none")
    targets[::5] = torchs[::5] = -100
    items = weighted_binary_cross_entropy(logits, targets, weights, reduction="none")
    assert torch.allclose(items, torchs.clamp(min=0))


def test_unweighted_several_labels_have_torchs_loss_and_gradient():
    logits, targets, _ = multi_label_batch(4, 16, 3)
    logits.requires_grad_()
    ours = weighted_binary_cross_entropy(logits, targets, torch.ones(3, 2))
    torchs = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)
    assert ours.item() == pytest.approx(torchs.item(), rel=1e-12)
    assert torch.allclose(torch.autograd.grad(ours, logits)[0], torch.autograd.grad(torchs, logits)[0])


@pytest.mark.parametrize("num_items", [5, 0.5, torch.tensor(5), torch.tensor(0.5)])
def test_the_sum_is_divided_by_num_items_of_any_kind(num_items):
    logits, labels, weights = batch(9, 8, 2)
    expected = reference(logits, labels, weights) * 8 / float(num_items)
    assert weighted_cross_entropy(logits, labels, weights, num_items).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("wrong", [-1, 3, 10])
def test_a_label_that_is_not_a_class_id_is_refused_on_the_cpu(wrong, smoothing):
    logits, labels, weights = batch(10, 8, 3)
    labels[2:4] = torch.tensor([-100, wrong])
    with pytest.raises(InvalidInputError, match=f"class ids from 0 to 2, or -100 .*Target {wrong} is out of bounds"):
        weighted_cross_entropy(logits, labels, weights, label_smoothing=smoothing)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_float_labels_are_class_ids_if_they_are_whole_numbers(dtype):
    logits, labels, weights = batch(11, 8, 3)
    labels[0] = -100
    expected = weighted_cross_entropy(logits, labels, weights)
    assert torch.equal(weighted_cross_entropy(logits, labels.to(dtype), weights), expected)
    wrong = labels.to(dtype)
    wrong[3] = 0.5
    with pytest.raises(InvalidInputError, match=r"labels must be class ids, got 0\.5: correct the labels"):
        weighted_cross_entropy(logits, wrong, weights)


def test_an_unknown_reduction_is_refused():
    with pytest.raises(InvalidInputError, match="reduction must be 'mean' or 'none', got 'sum'"):
        weighted_cross_entropy(torch.zeros(1, 2), torch.tensor([0]), torch.ones(2), reduction="sum")


def test_labels_and_weights_may_be_on_another_device_than_the_logits():
    """The meta device has shapes only, but operations refuse tensors of another device as on a GPU."""
    logits, labels, weights = batch(12, 8, 3)
    several, pair_weights = torch.zeros(8, 3), torch.ones(3, 2)
    meta = logits.to("meta")
    for num_items in (None, 8, torch.tensor(8)):
        assert weighted_cross_entropy(meta, labels, weights, num_items).device.type == "meta"
        assert weighted_binary_cross_entropy(meta, several, pair_weights, num_items).device.type == "meta"
    assert weighted_cross_entropy(meta, labels, weights, reduction="none").shape == (8,)
    assert calibrated_logits(meta, weights).device.type == "meta"


def test_calibrated_logits_are_the_logits_minus_the_log_weights_in_the_dtype_of_the_logits():
    logits, _, weights = batch(13, 4, 3)
    assert torch.allclose(calibrated_logits(logits, weights), logits - weights.log())
    assert calibrated_logits(logits.half(), weights).dtype == torch.float16
