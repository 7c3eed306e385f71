"""Trains the tiny reasoner: `python -m examples.tiny_reasoner.train --out DIR`."""

from __future__ import annotations

import argparse
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from examples.tiny_reasoner.bpe import train_tokenizer
from examples.tiny_reasoner.corpus import Batch, Corpus
from examples.tiny_reasoner.evaluate import QUESTIONS, SAMPLES, TEMPERATURE, measure, table, write_card
from examples.tiny_reasoner.export import export
from examples.tiny_reasoner.model import Shape, TinyQwen3, tree_mask
from examples.tiny_reasoner.task import held_out_set, questions
from examples.tiny_reasoner.thoughts import long_thought

TOKENIZER_QUESTIONS = 20_000
HARDEST = 12


@dataclass(frozen=True, slots=True)
class Plan:
    """Settings of a run; a resumed run may change all of them except the shape and the seed."""

    out: Path
    work: Path
    steps: int
    decay: int
    batch_tokens: int
    matrix_rate: float
    other_rate: float
    curriculum: int
    warmup: int
    seed: int
    device: str
    threads: int
    exact: bool
    start: Path | None
    questions: int


def read_plan() -> Plan:
    """The plan from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("examples/tiny_reasoner/weights"), help="where the model goes")
    add("--work", type=Path, default=Path("tiny-reasoner-run"), help="where checkpoints go")
    add("--steps", type=int, default=14_000)
    add("--decay", type=int, default=3_000, help="steps at the end over which the rates fall to zero")
    add("--batch-tokens", type=int, default=4_096)
    add("--matrix-rate", type=float, default=0.02, help="peak rate of Muon")
    add("--other-rate", type=float, default=0.004, help="peak rate of AdamW")
    add("--curriculum", type=int, default=1_500, help="steps until the hardest questions appear")
    add("--warmup", type=int, default=100)
    add("--seed", type=int, default=0)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--threads", type=int, default=torch.get_num_threads())
    add("--exact", action="store_true", help="compute in float32 rather than bfloat16; good for the decay")
    add("--start", type=Path, help="model directory whose weights and tokenizer a fresh run begins with")
    add("--questions", type=int, default=QUESTIONS, help="held-out questions measured at the end; 0: none")
    return Plan(**vars(parser.parse_args()))


def make_tokenizer(seed: int) -> Tokenizer:
    """A tokenizer fitted to the task's own text."""
    rng = random.Random(seed)
    stream = questions(seed, for_training=True)

    def texts() -> Iterator[str]:
        for _ in range(TOKENIZER_QUESTIONS):
            question = next(stream)
            yield f"user\n{question.text}\nassistant\n"
            yield "".join(piece.text for piece in long_thought(question, rng)) + "\n\n"

    return train_tokenizer(texts())


def rate_factor(step: int, plan: Plan) -> float:
    """Warm up, stay constant, then fall linearly to zero."""
    left = max(0, plan.steps - step) / max(1, plan.decay)
    return min(1.0, (step + 1) / max(1, plan.warmup), left)


class Run:
    """Model, optimizers and step count, with checkpoints."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.step = plan, 0
        plan.work.mkdir(parents=True, exist_ok=True)
        self.tokenizer = self._tokenizer()
        torch.manual_seed(plan.seed)
        padded = -(-self.tokenizer.get_vocab_size() // 64) * 64
        self.model = TinyQwen3(Shape(vocab_size=padded)).to(plan.device)
        body = self.model.model.layers
        matrices = [weight for weight in body.parameters() if weight.ndim == 2]
        others = [weight for weight in self.model.parameters() if all(weight is not m for m in matrices)]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=plan.matrix_rate, momentum=0.95, weight_decay=0.01),
            torch.optim.AdamW(others, lr=plan.other_rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.twin = TinyQwen3(self.model.shape).to(
            plan.device, torch.float32 if plan.exact else torch.bfloat16
        )
        self.compute = torch.compile(self.twin, dynamic=True)
        self.peaks = (plan.matrix_rate, plan.other_rate)
        if self._checkpoint.exists():
            self._load()
        elif plan.start is not None:
            self.model.load_state_dict(load_file(plan.start / "model.safetensors"))

    @property
    def _checkpoint(self) -> Path:
        return self.plan.work / "checkpoint.pt"

    def _tokenizer(self) -> Tokenizer:
        path = self.plan.work / "tokenizer.json"
        if not path.exists() and self.plan.start is not None:
            path.write_bytes((self.plan.start / "tokenizer.json").read_bytes())
        elif not path.exists():
            make_tokenizer(self.plan.seed).save(str(path))
        return Tokenizer.from_file(str(path))

    def _load(self) -> None:
        state = torch.load(self._checkpoint, map_location=self.plan.device)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = state["step"]

    def save(self) -> None:
        """Write the checkpoint and the model directory; a file of weights is replaced only when complete."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
        }
        fresh = self._checkpoint.with_suffix(".new")
        torch.save(state, fresh)
        fresh.replace(self._checkpoint)
        export(self.model, self.tokenizer, self.plan.out)

    def learn(self, batch: Batch) -> float:
        """One step of both optimizers on the float32 weights; the twin computes. Returns the loss."""
        factor = rate_factor(self.step, self.plan)
        for optimizer, peak in zip(self.optimizers, self.peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
        pairs = list(zip(self.model.parameters(), self.twin.parameters(), strict=True))
        with torch.no_grad():
            for weight, copy in pairs:
                copy.copy_(weight)
                copy.grad = None
        loss = batch_loss(self.compute, batch, self.plan.device)
        loss.backward()
        for weight, copy in pairs:
            weight.grad = None if copy.grad is None else copy.grad.to(weight.dtype)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        return float(loss.item())


def batch_loss(model: Callable[..., Tensor], batch: Batch, device: str) -> Tensor:
    """Mean cross-entropy over the tokens to train on."""
    ids, taught, branch, position, sees = (
        torch.from_numpy(array).to(device)
        for array in (batch.ids, batch.taught, batch.branch, batch.position, batch.sees)
    )
    logits = model(ids, position, tree_mask(branch, sees))[:, :-1]
    taught = taught[:, 1:]
    return F.cross_entropy(logits[taught].float(), ids[:, 1:][taught])


class Stop:
    """Set by an interrupt. The run then ends after its step, so that it never saves a partial state."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True


def train(plan: Plan) -> None:
    """Run to the end of the plan; saves at intervals, at the end, and when interrupted."""
    stop = Stop()
    torch.set_num_threads(plan.threads)
    run = Run(plan)
    corpus = Corpus(run.tokenizer, plan.seed + 1 + run.step)
    batches = corpus.batches(plan.batch_tokens)
    columns = (
        TextColumn("[bold]training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    smooth, began, tokens = 0.0, time.monotonic(), 0
    with Progress(*columns) as progress:
        bar = progress.add_task("", total=plan.steps, completed=run.step)
        while run.step < plan.steps and not stop.asked:
            corpus.most_steps = (
                2 + HARDEST * run.step // plan.curriculum if run.step < plan.curriculum else None
            )
            batch = next(batches)
            loss = run.learn(batch)
            tokens += batch.ids.size
            smooth = loss if smooth == 0.0 else 0.98 * smooth + 0.02 * loss
            speed = tokens / (time.monotonic() - began)
            progress.update(bar, advance=1, description=f"loss {smooth:.3f}  {speed:,.0f} tokens/s")
            if run.step % 20 == 0:
                progress.console.print(f"step {run.step}  loss {smooth:.4f}  {speed:,.0f} tokens/s")
            if run.step % 100 == 0:
                run.save()
    run.save()
    if plan.questions and run.step >= plan.steps and not stop.asked:
        asked = held_out_set(plan.questions)
        write_card(table(asked, measure(plan.out, asked, SAMPLES, TEMPERATURE)), plan.out, TEMPERATURE)


if __name__ == "__main__":
    train(read_plan())
