"""Minimising over the simplex, against SciPy and exhaustive search."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special

from gblend.simplex import Local, minimise_on_simplex, project


def quadratic(matrix, centre):
    def at(point):
        away = point - centre
        return Local(value=float(away @ matrix @ away) / 2, gradient=matrix @ away, hessian=matrix)

    return at


def entropy_like(slopes):
    """log-sum-exp of random linear functions: smooth, convex, curved differently everywhere."""

    def at(point):
        values = slopes @ point
        share = scipy.special.softmax(values)
        mean = share @ slopes
        return Local(
            value=float(scipy.special.logsumexp(values)),
            gradient=mean,
            hessian=(slopes * share[:, None]).T @ slopes - np.outer(mean, mean),
        )

    return at


def by_slsqp(at, size: int) -> float:
    found = scipy.optimize.minimize(
        lambda w: at(w).value,
        np.full(size, 1 / size),
        jac=lambda w: at(w).gradient,
        method="SLSQP",
        bounds=[(0, 1)] * size,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return at(project(found.x)).value  # it keeps the sum only nearly


def problems():
    rng = np.random.default_rng(0)
    for size in (2, 3, 5, 9):
        for rank in (1, size):
            factor = rng.normal(size=(rank, size)) * 10 ** rng.uniform(-2, 1)
            yield quadratic(factor.T @ factor, rng.normal(size=size)), size
        yield entropy_like(rng.normal(size=(40, size)) * 5), size


def test_it_finds_what_scipy_finds_and_its_gap_is_a_bound():
    for at, size in problems():
        found, rival = minimise_on_simplex(at, size), by_slsqp(at, size)
        scale = 1 + abs(rival)
        assert found.value <= rival + 1e-7 * scale
        assert found.value - found.gap <= rival + 1e-9 * scale
        assert found.gap <= 1e-6 * scale
        assert found.point.sum() == pytest.approx(1.0)
        assert found.point.min() >= 0


def test_a_linear_function_is_lowest_in_a_corner():
    gradient = np.array([0.3, -0.2, 0.1])
    found = minimise_on_simplex(
        lambda w: Local(value=float(gradient @ w), gradient=gradient, hessian=np.zeros((3, 3))), 3
    )
    np.testing.assert_allclose(found.point, [0, 1, 0])


def test_a_constant_function_is_left_at_the_centre():
    found = minimise_on_simplex(lambda w: Local(value=1.0, gradient=np.zeros(4), hessian=np.zeros((4, 4))), 4)
    np.testing.assert_array_equal(found.point, [0.25] * 4)


def test_a_single_weight_is_one():
    found = minimise_on_simplex(quadratic(np.eye(1), np.array([5.0])), 1)
    np.testing.assert_array_equal(found.point, [1.0])


def test_the_projection_is_the_nearest_point_of_a_fine_grid():
    rng = np.random.default_rng(1)
    steps = np.linspace(0, 1, 201)
    grid = np.array([(a, b, 1 - a - b) for a in steps for b in steps if a + b <= 1])
    for _ in range(20):
        values = rng.normal(size=3)
        nearest = grid[np.argmin(((grid - values) ** 2).sum(axis=1))]
        np.testing.assert_allclose(project(values), nearest, atol=0.01)


def test_values_beyond_all_measure_are_projected_on_the_largest():
    np.testing.assert_array_equal(project(np.array([-5.7e55, -7.8e55, 3.9e54])), [0, 0, 1])


def test_a_function_that_is_all_but_linear_is_lowest_in_a_corner():
    """As the loss of heads so certain that no curvature is left."""
    gradient = np.array([2.0, 3.0, -1.0])
    found = minimise_on_simplex(
        lambda w: Local(value=float(gradient @ w), gradient=gradient, hessian=1e-55 * np.eye(3)), 3
    )
    np.testing.assert_array_equal(found.point, [0, 0, 1])
