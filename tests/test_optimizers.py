"""MuonAdamW: each part does what torch's own optimizer does, and both are one to schedules and checkpoints."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import AdamW, Muon
from torch.optim.lr_scheduler import LambdaLR

from mmdiffusion.methods.base import ParameterGroup, optimizer_groups
from mmdiffusion.nn.layers import Modulation
from mmdiffusion.optimizers import MuonAdamW, is_matrix, split_matrices

WIDTH = 64


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(100, WIDTH)
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, 3)
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, codes):
        return self.out(self.hidden(self.table(codes)).relu()) * self.scale


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network()


def groups_of(network):
    return list(optimizer_groups(network, [ParameterGroup(list(network.parameters()))]))


def train(network, *optimizers, steps=5, seed=0, schedules=()):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        codes = torch.randint(100, (16,), generator=generator)
        network.zero_grad()
        (network(codes) - codes[:, None] / 100).square().mean().backward()
        for one in (*optimizers, *schedules):
            one.step()
    return network.state_dict()


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=0)


def test_matrices_are_weights_of_wide_linear_layers(network):
    matrices, others = split_matrices(network, network.parameters())
    assert [id(p) for p in matrices] == [id(network.hidden.weight)]
    assert len(others) == len(list(network.parameters())) - 1
    assert not is_matrix(nn.Linear(WIDTH, WIDTH - 1))
    assert not is_matrix(Modulation(WIDTH, WIDTH, num_parts=6)), "it maps a time and a condition to scales"


def test_groups_part_matrices_and_numbers_which_do_not_decay(network):
    groups = groups_of(network)
    assert [(group["is_matrix"], group["decays"]) for group in groups] == [(True, True), (False, True), (False, False)]
    assert [id(p) for p in groups[2]["params"]] == [id(network.scale)]
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_it_is_torch_s_muon_and_adamw_side_by_side(network):
    other = copy.deepcopy(network)
    ours = train(network, MuonAdamW(groups_of(network), lr=1e-3, matrix_lr=4e-3, weight_decay=0.1))
    matrices, others = split_matrices(other, other.parameters())
    muon = Muon(matrices, 4e-3, 0.1, adjust_lr_fn="match_rms_adamw")
    assert_equal(ours, train(other, muon, AdamW(others, 1e-3, (0.9, 0.99), weight_decay=0.1, fused=True)))


def test_a_schedule_moves_both_rates(network):
    optimizer = MuonAdamW(groups_of(network), lr=1e-3, matrix_lr=4e-3)
    train(network, optimizer, steps=1, schedules=[LambdaLR(optimizer, lambda step: 0.5**step)])
    assert [group["lr"] for group in optimizer.param_groups] == [2e-3, 5e-4, 5e-4]
    before = copy.deepcopy(network.state_dict())
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    assert_equal(train(network, optimizer, steps=1), before)


def test_training_goes_on_from_its_state_to_the_bit(network):
    first = MuonAdamW(groups_of(network))
    train(network, first)
    weights, state = copy.deepcopy(network.state_dict()), copy.deepcopy(first.state_dict())
    expected = copy.deepcopy(train(network, first, seed=1))
    again = Network()
    again.load_state_dict(weights)
    second = MuonAdamW(groups_of(again), lr=1.0, matrix_lr=1.0)
    second.load_state_dict(state)
    assert_equal(train(again, second, seed=1), expected)


@pytest.mark.parametrize("kept", [True, False], ids=["matrices alone", "no matrix"])
def test_one_kind_alone_trains(network, kept):
    groups = [group for group in groups_of(network) if group["is_matrix"] is kept]
    before = copy.deepcopy(network.state_dict())
    after = train(network, MuonAdamW(groups))
    assert torch.equal(before["hidden.weight"], after["hidden.weight"]) is not kept
    assert torch.equal(before["table.weight"], after["table.weight"]) is kept


def test_a_closure_computes_the_gradient(network):
    optimizer = MuonAdamW(groups_of(network))
    seen = []

    def closure():
        network.zero_grad()
        loss = network(torch.arange(4)).square().mean()
        loss.backward()
        seen.append(loss.item())
        return seen[-1]

    assert optimizer.step(closure) == seen[0]
    assert closure() < seen[0]
