"""Clients are processes that drop their models into a spool; they know nothing of encagg.

    encagg capture runs/spooled --watch spool --weights &
    python spool_clients.py spool

Any program that can write .safetensors, .npz, .npy or .pt files can be such a client. Hugging Face's `Trainer` is one
with `safetensors.torch.save_model(trainer.model, path)` after `trainer.train()`.
"""

import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

CLIENTS, ROUNDS = 3, 2


def new_model() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))


def put(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write under a name that a reader passes over, then rename: nobody sees half a file."""
    unfinished = path.with_name(f"{path.name}.tmp")
    save_file(tensors, unfinished, metadata={"num_examples": "400"})
    unfinished.rename(path)


def client(folder: Path, number: int) -> None:
    """One client in one round: load the global model, train, drop the result."""
    torch.set_num_threads(1)  # the model is small: threads would wait for each other
    data = load_file(f"client-{number}.safetensors")
    model = new_model()
    model.load_state_dict(load_file(folder / "_global.safetensors"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for images, labels in zip(data["images"].split(32), data["labels"].split(32), strict=True):
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    put(model.state_dict(), folder / f"client-{number}.safetensors")


def hand_out_data() -> None:
    """Each client has its own images, which the server would never see."""
    from sklearn.datasets import load_digits

    images, labels = (torch.from_numpy(values) for values in load_digits(return_X_y=True))
    for number, mine in enumerate(torch.randperm(len(images))[: 400 * CLIENTS].chunk(CLIENTS)):
        data = {"images": images[mine].float() / 16, "labels": labels[mine]}
        save_file(data, f"client-{number}.safetensors")


def server(spool: Path) -> None:
    """Hand out the global model, wait for the clients, average what they send."""
    torch.manual_seed(0)
    hand_out_data()
    model = new_model().state_dict()
    for round_number in range(1, ROUNDS + 1):
        folder = spool / f"round-{round_number:04d}"
        folder.mkdir(parents=True)
        put(model, folder / "_global.safetensors")
        commands = [[sys.executable, __file__, str(spool), str(round_number), str(index)] for index in range(CLIENTS)]
        processes = [subprocess.Popen(command) for command in commands]
        if any(process.wait() for process in processes):
            raise SystemExit("a client failed")
        (folder / "_done").touch()
        models = [load_file(folder / f"client-{index}.safetensors") for index in range(CLIENTS)]
        model = {name: sum(m[name] for m in models) / CLIENTS for name in model}
        model = {name: values.to(models[0][name].dtype) for name, values in model.items()}
        print(f"round {round_number}: {CLIENTS} clients")
    (spool / "_end").touch()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        client(Path(sys.argv[1]) / f"round-{int(sys.argv[2]):04d}", int(sys.argv[3]))
    else:
        server(Path(sys.argv[1]))
