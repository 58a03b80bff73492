"""Models and local training, against arithmetic by hand."""

import numpy as np
import pytest
import torch

from encagg_cli.errors import UsageError
from encagg_cli.federation import datasets
from encagg_cli.federation.datasets import Dataset
from encagg_cli.federation.models import Model
from encagg_cli.federation.training import Clients, LocalTraining, one_thread

DIGITS = datasets.load("digits")
SHARDS = [np.arange(0, 40), np.arange(40, 100), np.arange(100, 107)]


def make_clients(training, model="logistic", seed=0):
    return Clients(DIGITS, SHARDS, Model(model, DIGITS), training, seed=seed)


def initial(clients, seed=0):
    return clients.model.initial(np.random.default_rng(seed))


def logistic_gradient(vector, x, y):
    """Gradient of the mean cross-entropy of softmax(W x + b), flattened as W then b."""
    weight, bias = vector[:640].reshape(10, 64).astype(np.float64), vector[640:].astype(np.float64)
    logits = x @ weight.T + bias
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[np.arange(len(y)), y] -= 1
    return np.concatenate([(shares.T @ x / len(y)).ravel(), shares.mean(axis=0)])


@pytest.mark.parametrize("name", ["logistic", "mlp", "cnn"])
def test_a_model_is_one_vector_with_its_last_layer_marked(name):
    model = Model(name, DIGITS)
    vector = model.initial(np.random.default_rng(1))
    model.load(vector)
    np.testing.assert_array_equal(model.vector(), vector)
    ends = [parameter.offset + parameter.size for parameter in model.parameters]
    assert ends[-1] == model.n_parameters == len(vector)
    assert [parameter.offset for parameter in model.parameters] == [0, *ends[:-1]]
    marked = [parameter.name for parameter in model.parameters if parameter.role == "output"]
    assert marked == [parameter.name for parameter in model.parameters[-2:]]


def test_the_cnn_has_two_convolutions_and_one_fully_connected_layer():
    mnist = Dataset("mnist", *(np.zeros((1, 1, 28, 28), np.float32), np.zeros(1, np.int64)) * 2)
    assert [len(parameter.shape) for parameter in Model("cnn", mnist).parameters] == [4, 1, 4, 1, 2, 1]


def test_fresh_parameters_are_within_the_fan_ins_bound():
    model = Model("mlp", DIGITS)
    vector = model.initial(np.random.default_rng(0))
    assert np.abs(vector[: 64 * 64]).max() <= 1 / 8
    assert vector.std() > 0.05


def test_an_unknown_model_is_refused():
    with pytest.raises(UsageError, match="no model 'vgg'"):
        Model("vgg", DIGITS)


def test_fedsgd_uploads_the_gradient_at_the_global_model():
    clients = make_clients(LocalTraining("fedsgd", batch_size=1000))
    vector = initial(clients)
    x, y = DIGITS.train_x[SHARDS[1]].reshape(60, 64), DIGITS.train_y[SHARDS[1]]
    np.testing.assert_allclose(clients.update(1, 0, vector), logistic_gradient(vector, x, y), atol=1e-6)


def test_fedsgd_takes_one_batch_which_changes_from_round_to_round():
    clients = make_clients(LocalTraining("fedsgd", batch_size=1))
    vector = initial(clients)
    singles = [
        logistic_gradient(vector, DIGITS.train_x[[row]].reshape(1, 64), DIGITS.train_y[[row]]) for row in SHARDS[0]
    ]
    chosen = []
    for number in range(6):
        distances = np.abs(np.array(singles) - clients.update(0, number, vector)).max(axis=1)
        assert distances.min() < 1e-6
        chosen.append(int(distances.argmin()))
    assert len(set(chosen)) > 2


def test_fedavg_uploads_what_local_steps_changed():
    clients = make_clients(LocalTraining("fedavg", epochs=3, batch_size=1000, learning_rate=0.5))
    vector = initial(clients)
    x, y = DIGITS.train_x[SHARDS[0]].reshape(40, 64), DIGITS.train_y[SHARDS[0]]
    local = vector.astype(np.float64)
    for _ in range(3):
        local = local - 0.5 * logistic_gradient(local, x, y)
    np.testing.assert_allclose(clients.update(0, 0, vector), local - vector, atol=2e-6)


def test_an_epoch_visits_every_sample_once():
    """With a vanishing rate an epoch of single samples moves along the sum of their gradients."""
    clients = make_clients(LocalTraining("fedavg", epochs=1, batch_size=1, learning_rate=1e-2))
    vector = np.zeros(650, dtype=np.float32)
    x, y = DIGITS.train_x[SHARDS[2]].reshape(7, 64), DIGITS.train_y[SHARDS[2]]
    full = -1e-2 * 7 * logistic_gradient(vector, x, y)
    update = clients.update(2, 0, vector)
    assert update @ full / np.linalg.norm(update) / np.linalg.norm(full) > 0.99


def test_relabelled_training_uses_the_same_batches_with_other_labels():
    clients = make_clients(LocalTraining("fedsgd", batch_size=1000))
    vector = initial(clients)
    x, y = DIGITS.train_x[SHARDS[1]].reshape(60, 64), DIGITS.train_y[SHARDS[1]]
    flipped = clients.update(1, 0, vector, lambda labels: 9 - labels)
    np.testing.assert_allclose(flipped, logistic_gradient(vector, x, 9 - y), atol=1e-6)


def test_accuracy_is_the_share_of_right_answers():
    clients = make_clients(LocalTraining())
    vector = initial(clients)
    weight, bias = vector[:640].reshape(10, 64), vector[640:]
    answers = (DIGITS.test_x.reshape(-1, 64) @ weight.T + bias).argmax(axis=1)
    assert clients.accuracy(vector) == pytest.approx((answers == DIGITS.test_y).mean())


@pytest.mark.parametrize("algorithm", ["fedavg", "fedsgd"])
def test_updates_do_not_depend_on_threads_on_order_or_on_torchs_own_generator(algorithm):
    updates = []
    for threads, order in ((1, (0, 1, 2)), (2, (2, 0, 1))):
        torch.manual_seed(threads)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            clients = make_clients(LocalTraining(algorithm), model="cnn")
            vector = initial(clients)
            with one_thread():
                made = {client: clients.update(client, 4, vector) for client in order}
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
        updates.append(np.stack([made[client] for client in range(3)]))
    np.testing.assert_array_equal(*updates)


def test_torchs_own_generator_is_left_alone():
    torch.manual_seed(3)
    expected = torch.random.get_rng_state()
    clients = make_clients(LocalTraining(), model="cnn")
    clients.update(0, 0, initial(clients))
    assert torch.equal(torch.random.get_rng_state(), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("name", ["logistic", "mlp", "cnn"])
def test_a_gpu_trains_as_the_processor_does(name):
    vector = Model(name, DIGITS).initial(np.random.default_rng(0))
    here, there = (
        Clients(DIGITS, SHARDS, Model(name, DIGITS, device), LocalTraining(), seed=0) for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(there.update(0, 0, vector), here.update(0, 0, vector), atol=1e-4)
    assert there.accuracy(vector) == pytest.approx(here.accuracy(vector), abs=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "fedprox"}, "no algorithm"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch size"),
        ({"learning_rate": 0.0}, "learning rate"),
        ({"learning_rate": float("nan")}, "learning rate"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        LocalTraining(**options)
