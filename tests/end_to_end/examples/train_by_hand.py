"""Federated averaging, written by hand; `record` hands each client's update over.

    encagg capture runs/by-hand -- python train_by_hand.py

Without `encagg capture` it trains just the same: `record` does nothing then.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from encagg_cli import record

CLIENTS, ROUNDS = 5, 3


def train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in torch.randperm(len(images)).split(32):
        optimizer.zero_grad()
        functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the model is small: threads would wait for each other
    images, labels = (torch.from_numpy(values) for values in load_digits(return_X_y=True))
    shards = torch.randperm(len(images)).chunk(CLIENTS)
    images = images.float() / 16
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    for round_number in range(1, ROUNDS + 1):
        start = {name: values.clone() for name, values in model.state_dict().items()}
        updates = []
        for client, shard in enumerate(shards):
            model.load_state_dict(start)
            train(model, images[shard], labels[shard])
            update = {name: values - start[name] for name, values in model.state_dict().items()}
            record(round_number, f"client-{client}", update, num_examples=len(shard), global_model=start)
            updates.append(update)
        model.load_state_dict({name: start[name] + sum(u[name] for u in updates) / CLIENTS for name in start})
        accuracy = (model(images).argmax(1) == labels).float().mean().item()
        print(f"round {round_number}: accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
