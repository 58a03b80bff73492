"""The generator: its losses are the paper's, its steps follow their gradient, and its state is all it carries."""

import dataclasses

import numpy as np
import pytest
import torch

from encagg_cli.errors import UnusableInput
from encagg_cli.filters.encagg.generator import Generator, GeneratorSettings, forward, losses_of

SETTINGS = GeneratorSettings(
    n_gen=40,
    noise_dim=4,
    width=8,
    learning_rate=0.01,
    w0=0.7,
    w1=2.5,
    tau=0.8,
    rho=0.6,
    alpha=1.3,
    beta=0.4,
    seed=3,
)
TINY = dataclasses.replace(SETTINGS, n_gen=6, noise_dim=2, width=3)


def network(parameters: np.ndarray, noise: np.ndarray, s: GeneratorSettings) -> tuple[np.ndarray, np.ndarray]:
    """Eqs. 12-13 in numpy: points (n, 2) and confidence (n,)."""
    flat = list(parameters)

    def layer(inputs: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
        weight = np.array([flat.pop(0) for _ in range(inputs * outputs)]).reshape(inputs, outputs)
        return weight, np.array([flat.pop(0) for _ in range(outputs)])

    hidden = noise
    for inputs in (s.noise_dim, s.width, s.width):
        weight, bias = layer(inputs, s.width)
        hidden = np.tanh(hidden @ weight + bias)
    point_weight, point_bias = layer(s.width, 2)
    confidence_weight, confidence_bias = layer(s.width, 1)
    assert not flat
    points = np.tanh(hidden @ point_weight + point_bias)
    return points, 1 / (1 + np.exp(-(hidden @ confidence_weight + confidence_bias)[:, 0]))


def paper_losses(
    offsets: np.ndarray, confidence: np.ndarray, inside: np.ndarray, s: GeneratorSettings
) -> tuple[float, float, float, float]:
    """Eqs. 17-20, term by term."""
    n = len(offsets)
    clust = 0.0
    for y, p in zip(inside, confidence, strict=True):
        clust -= (s.w1 * np.log(p) if y else s.w0 * np.log(1 - p)) / n
    mean_x, mean_y = offsets.mean(axis=0)
    spread_x, spread_y = offsets.std(axis=0)
    direction = abs(mean_x) + abs(mean_y) + max(0.0, s.tau - spread_x) + max(0.0, s.tau - spread_y)
    dispersion = 0.0
    for i in range(n):
        for j in range(i + 1, n):
            dispersion += max(0.0, s.rho - float(np.linalg.norm(offsets[i] - offsets[j]))) ** 2 / n
    return clust + s.alpha * direction + s.beta * dispersion, clust, direction, dispersion


@pytest.mark.parametrize("scale", [0.1, 0.7, 3.0])  # below τ and ρ, about them, above
def test_losses_are_those_of_the_paper(scale: float) -> None:
    random = np.random.default_rng(0)
    offsets = scale * random.normal(size=(40, 2)) + 0.2
    logits = random.normal(size=40)
    inside = random.random(40) < 0.6
    losses = losses_of(*map(torch.from_numpy, (offsets, logits, inside)), SETTINGS)
    expected = paper_losses(offsets, 1 / (1 + np.exp(-logits)), inside, SETTINGS)
    np.testing.assert_allclose(losses.values(), expected, rtol=1e-10)


def test_the_network_is_three_shared_tanh_layers_and_two_heads() -> None:
    generator = Generator(SETTINGS)
    proposal = generator.propose()
    points, confidence = network(generator.parameters.numpy(), proposal.noise, SETTINGS)
    np.testing.assert_allclose(proposal.points, points, rtol=1e-12)
    np.testing.assert_allclose(proposal.confidence, confidence, rtol=1e-12)
    assert proposal.points.shape == (40, 2)
    assert (np.abs(proposal.points) < 1).all()
    assert ((proposal.confidence > 0) & (proposal.confidence < 1)).all()


def test_a_step_follows_the_gradient_of_the_written_out_losses() -> None:
    generator = Generator(TINY)
    before = generator.parameters.numpy().copy()
    proposal = generator.propose()
    inside = np.array([True, False, True, True, False, False])
    extent = np.array([2.0, 0.5])

    def total(parameters: np.ndarray) -> float:
        points, confidence = network(parameters, proposal.noise, TINY)
        return paper_losses(points * extent, confidence, inside, TINY)[0]

    gradient = np.zeros_like(before)
    for k in range(len(before)):
        step = np.zeros_like(before)
        step[k] = 1e-6
        gradient[k] = (total(before + step) - total(before - step)) / 2e-6
    losses = generator.learn(proposal, inside, extent)
    assert losses.values()[0] == pytest.approx(total(before), rel=1e-10)
    # After one step Adam's mean is (1 - 0.9) times the gradient, and its direction the gradient's sign.
    np.testing.assert_allclose(generator.state_dict()["adam_mean"] / 0.1, gradient, atol=1e-7)
    np.testing.assert_allclose(
        generator.parameters.numpy(), before - TINY.learning_rate * gradient / (np.abs(gradient) + 1e-8), atol=1e-6
    )


def test_further_steps_are_those_of_torchs_own_adam() -> None:
    generator = Generator(TINY)
    parameters = generator.parameters.clone().requires_grad_()
    adam = torch.optim.Adam([parameters], lr=TINY.learning_rate, foreach=False)
    inside = np.array([True, True, False, True, False, True])
    extent = np.array([1.0, 3.0])
    for _ in range(4):
        proposal = generator.propose()
        generator.learn(proposal, inside, extent)
        adam.zero_grad()
        points, logits = forward(parameters, torch.from_numpy(proposal.noise), TINY)
        losses_of(points * torch.from_numpy(extent), logits, torch.from_numpy(inside), TINY).total.backward()
        adam.step()
    np.testing.assert_allclose(generator.parameters.numpy(), parameters.detach().numpy(), rtol=1e-9)


def test_training_lowers_the_losses() -> None:
    settings = dataclasses.replace(SETTINGS, n_gen=100, learning_rate=0.01)
    generator = Generator(settings)
    extent = np.array([4.0, 3.0])
    totals = []
    for _ in range(60):
        proposal = generator.propose()
        inside = np.linalg.norm(proposal.points * extent, axis=1) < 2.0
        totals.append(generator.learn(proposal, inside, extent).values()[0])
    assert np.mean(totals[-10:]) < 0.7 * np.mean(totals[:10])


def test_points_that_coincide_do_not_break_the_gradient() -> None:
    generator = Generator(TINY)
    generator.parameters = torch.zeros_like(generator.parameters)
    generator.learn(generator.propose(), np.ones(6, dtype=bool), np.array([1.0, 1.0]))
    assert torch.isfinite(generator.parameters).all()


def test_a_single_pseudo_gradient_is_enough() -> None:
    generator = Generator(dataclasses.replace(TINY, n_gen=1))
    losses = generator.learn(generator.propose(), np.array([True]), np.array([1.0, 1.0]))
    assert losses.values()[3] == 0.0
    assert torch.isfinite(generator.parameters).all()


def run(generator: Generator, rounds: int) -> np.ndarray:
    extent = np.array([2.0, 1.0])
    for _ in range(rounds):
        proposal = generator.propose()
        generator.learn(proposal, proposal.points[:, 0] > 0, extent)
    return np.concatenate([generator.parameters.numpy(), proposal.points.ravel(), proposal.confidence])


def test_a_seed_gives_the_same_bits_on_any_number_of_threads_and_leaves_torch_as_it_was() -> None:
    settings = dataclasses.replace(SETTINGS, n_gen=500, width=64)  # large enough that torch would split the sums
    before = torch.get_num_threads()
    torch.manual_seed(11)
    global_state = torch.random.get_rng_state()
    outcomes = []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            outcomes.append(run(Generator(settings), 3))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(outcome, outcomes[0]) for outcome in outcomes)
    assert torch.equal(torch.random.get_rng_state(), global_state)
    assert not np.array_equal(run(Generator(dataclasses.replace(settings, seed=4)), 3), outcomes[0])


def test_a_restored_generator_goes_on_bit_for_bit() -> None:
    uninterrupted = run(Generator(SETTINGS), 7)
    first = Generator(SETTINGS)
    run(first, 4)
    state = first.state_dict()
    run(first, 2)  # what was handed out does not move on with its owner
    second = Generator(dataclasses.replace(SETTINGS, seed=99))
    second.load_state_dict(state)
    assert second.rounds == 4
    assert np.array_equal(run(second, 3), uninterrupted)


def test_a_state_is_arrays_and_numbers() -> None:
    generator = Generator(SETTINGS)
    run(generator, 1)
    assert all(isinstance(value, np.ndarray | int) for value in generator.state_dict().values())


@pytest.mark.parametrize(
    "damage",
    [
        {"parameters": np.zeros(3)},
        {"parameters": np.array(["a"])},
        {"adam_mean": None},
        {"rounds": float("nan")},
        {"rounds": np.array([1, 2])},
        {"random": np.zeros(16, dtype=np.uint8)},
        {"random": np.zeros(5056, dtype=np.uint8)},
        {"surplus": 1},
    ],
)
def test_a_state_that_is_not_its_own_is_refused_and_changes_nothing(damage: dict[str, object]) -> None:
    generator = Generator(SETTINGS)
    run(generator, 2)
    own = generator.state_dict()
    with pytest.raises(UnusableInput):
        generator.load_state_dict({**own, **damage})
    for name, value in generator.state_dict().items():
        assert np.array_equal(value, own[name])


def test_a_state_of_another_width_is_refused() -> None:
    wider = Generator(dataclasses.replace(SETTINGS, width=9))
    with pytest.raises(UnusableInput, match="does not fit"):
        Generator(SETTINGS).load_state_dict(wider.state_dict())
