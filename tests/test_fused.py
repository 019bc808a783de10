"""The paper's loss as backward runs it: its closed form, eager and compiled, and what it moves."""

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._inductor import config as inductor
from torch._inductor import metrics
from torch._inductor.utils import run_and_get_code

from let_titan.alignment import cosine_alignment, gradient_of
from let_titan.alignment.gradient import added_gradient, differentiated
from tests.support import relative_error
from tests.test_alignment import reference, states

WIDTHS = [(12, 7), (7, 12), (9, 9), (131, 57)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 99))
def test_the_closed_form_is_what_torch_differentiates(d_m, d_t, seed):
    arguments = states(d_m=d_m, d_t=d_t, seed=seed)
    found, sums = gradient_of(cosine_alignment)(*arguments)
    wanted, wanted_sums = differentiated(cosine_alignment)(*arguments)
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-6)
    assert torch.allclose(torch.stack(sums), torch.stack(wanted_sums), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [0, 1])
def test_the_closed_form_at_states_of_zeros(side):
    arguments = states()
    arguments[side][0] = 0.0
    found, _ = gradient_of(cosine_alignment)(*arguments)
    wanted, _ = differentiated(cosine_alignment)(*arguments)
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-6)


def added(device, dtype, widths, backend, of_scale=None, of_teacher=None):
    """What ``added_gradient`` gives, and float64 autograd's answer to the same."""
    hidden, teacher, mask = states(d_m=widths[0], d_t=widths[1])
    above = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1))
    hidden, above, teacher = hidden.to(dtype), above.to(dtype), teacher.to(of_teacher or dtype)
    twin = hidden.double().requires_grad_()
    loss = reference(twin, teacher, mask)
    loss.backward()
    wanted = above.double() + 0.3 * twin.grad
    add = added_gradient(cosine_alignment, backend)
    above, hidden, teacher, mask = (t.to(device) for t in (above, hidden, teacher, mask))
    arguments = above, torch.tensor(0.3, device=of_scale or device), hidden, teacher, mask
    if backend is None:
        gradient, (found, _) = add(*arguments)
    else:
        torch.compiler.reset()  # after eight shapes it would run eager, and widths become symbols
        (gradient, (found, _)), (_,) = run_and_get_code(add, *arguments)
    assert gradient.dtype == dtype
    assert found.item() == pytest.approx(loss.item(), rel=1e-5, abs=1e-6)
    return gradient.cpu(), wanted


# float64 is rounded to the gradient's dtype once; nothing in between is
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float16: 5e-4}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", [None, "inductor"])
def test_added_to_what_comes_from_above(backend, dtype):
    for widths in WIDTHS if backend is None else WIDTHS[:1] + WIDTHS[3:]:
        assert relative_error(*added("cpu", dtype, widths, backend)) < TOLERANCE[dtype]


ON_A_GPU = [*(((2048, 576), dtype) for dtype in DTYPES), *zip(WIDTHS[1:], DTYPES, strict=True)]
"""1.4B under 135M in each dtype, and odd widths, equal ones and a wider teacher in one each."""


@pytest.mark.gpu
@pytest.mark.parametrize(("widths", "dtype"), ON_A_GPU)
def test_the_fused_kernel_on_a_gpu(widths, dtype):
    assert relative_error(*added("cuda", dtype, widths, "inductor")) < TOLERANCE[dtype]


@pytest.mark.gpu
def test_the_fused_kernel_takes_a_student_in_fp32_under_a_teacher_in_bf16():
    """As on one GPU, where AMP leaves the residual stream in fp32."""
    found = added("cuda", torch.float32, (2048, 576), "inductor", of_teacher=torch.bfloat16)
    assert relative_error(*found) < TOLERANCE[torch.float32]


@pytest.mark.gpu
def test_the_fused_kernel_takes_a_scale_from_the_host():
    """As several ranks have it, to whom the number of tokens comes as a number."""
    found = added("cuda", torch.bfloat16, (2048, 576), "inductor", of_scale="cpu")
    assert relative_error(*found) < TOLERANCE[torch.bfloat16]


def kernels(device: str) -> tuple[int, list[int]]:
    """Returns the kernels that inductor makes of a step's work, and the sizes of buffers."""
    torch.compiler.reset()
    hidden, teacher, mask = states(b=4, s=64, d_m=256, d_t=72)
    hidden, teacher, mask = (t.to(device) for t in (hidden.bfloat16(), teacher.bfloat16(), mask))
    arguments = (torch.randn_like(hidden), torch.tensor(0.1, device=device), hidden, teacher, mask)
    _, (code,) = run_and_get_code(added_gradient(cosine_alignment, "inductor"), *arguments)
    shapes = re.findall(r"= empty_strided_\w+\(\(([\d, ]*)\)", code)
    sizes = [math.prod(int(n) for n in shape.split(",") if n.strip()) for shape in shapes]
    return len(re.findall(r"async_compile\.(?:cpp_pybinding|triton)\(", code)), sizes


def check_one_pass(device: str, n_kernels: int) -> None:
    """One buffer of the states' size, the result; all else is a number a token at most."""
    found, sizes = kernels(device)
    assert found <= n_kernels
    assert sorted(sizes)[-1] == 4 * 64 * 256 and sorted(sizes)[-2] <= 4 * 64


def test_one_pass_over_memory_when_compiled():
    check_one_pass("cpu", 1)


@pytest.mark.skipif(
    torch.__version__ < (2, 13), reason="on a CPU, and not on a GPU, an older inductor keeps one"
)
@pytest.mark.parametrize("widths", [(256, 72), (72, 256), (64, 64)])
def test_nothing_waits_in_memory_for_the_second_pass_over_a_token(widths):
    """Where a CPU's kernel keeps a value, a GPU's, whose passes are loops of their own, stores it.

    Inductor's graph has three sums over a token, the result, the total and its sign.
    """
    torch.compiler.reset()
    metrics.reset()
    hidden, teacher, mask = states(b=4, s=64, d_m=widths[0], d_t=widths[1])
    arguments = (torch.randn_like(hidden), torch.tensor(0.1), hidden, teacher, mask)
    with inductor.patch(force_disable_caches=True):
        added_gradient(cosine_alignment, "inductor")(*arguments)
    assert metrics.ir_nodes_pre_fusion == 6


@pytest.mark.gpu
def test_one_pass_over_memory_when_compiled_on_a_gpu():
    check_one_pass("cuda", 3)  # the states, the sum over tokens, its sign
