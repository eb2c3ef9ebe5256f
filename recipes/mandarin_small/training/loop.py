"""The training loop: a given time or number of steps, with evaluations, and a state to resume from."""

import json
import threading
import time
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from citrinet import CitrinetProcessor
from citrinet.modeling_citrinet import ctc_loss
from citrinet.training.auxiliary import AuxiliaryHeads
from citrinet.training.averaging import WeightAverage

from .batches import Batch, Loader, Planner, PlanStream
from .checkpoint import STATE, load_state, save_model, save_state
from .data import Corpus, Labels
from .network import SIZES, make_network
from .options import Options
from .picture import draw_log
from .schedule import Clock, Schedule
from .scoring import Validation

WEIGHT_DECAY = 0.02
LARGEST_GRADIENT = 5.0
AVERAGE_DECAY = 0.999
SAVE_EVERY = 60.0  # seconds
REPORT_EVERY = 10.0  # seconds; also after every twentieth of the steps
SAVING = 3.0  # seconds reserved for saving at the end
PARTS = ("model", "heads", "average", "optimizer", "scaler")


class Training:
    """
    A training run: network, optimiser and progress.

    Args:
        options: the options.
        corpus: all speech.
        processor: feature extractor and tokenizer.
        labels: labels, for the number of syllables.
    """

    def __init__(self, options: Options, corpus: Corpus, processor: CitrinetProcessor, labels: Labels):
        self.options, self.corpus, self.processor, self.schedule = options, corpus, processor, Schedule()
        self.device = options.place
        self.model = make_network(options.size, processor.tokenizer, corpus.tag_labels, options.seed)
        nn.Module.to(self.model, self.device).train()
        self.masks = self.model.config.freq_masks, self.model.config.time_masks
        config = self.model.config
        self.ratio = config.inputs_to_logits_ratio // config.hop_length
        self.heads = AuxiliaryHeads(config, SIZES[options.size][3], labels.syllable_count + 1).to(self.device)
        self.weights = [*self.model.parameters(), *self.heads.parameters()]
        self.average = WeightAverage(self.model, AVERAGE_DECAY)
        self.optimizer = self._make_optimizer()
        # It skips steps whose gradients are not finite, without waiting for the device.
        self.scaler = torch.amp.GradScaler(self.device.type, init_scale=1.0, growth_interval=2**31 - 1)
        self.loader = Loader(corpus, processor.feature_extractor)
        self.validation = Validation(corpus, self.loader, processor)
        self.batch_seconds = options.batch_seconds or (1_500.0 if self.device.type == "cuda" else 60.0)
        self.step, self.evaluated = 0, 0
        self.log, self.state_file = options.out / "log.jsonl", options.out / STATE
        self.seconds = 0.0  # seconds of speech since this process began
        self._sums: dict[str, torch.Tensor] = {}
        self._last, self._reported = (0, 0.0), 0.0  # steps and seconds of speech at the last report, and its time

    def _make_optimizer(self) -> torch.optim.Optimizer:
        groups = [
            {"params": [weight for weight in self.weights if weight.ndim > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [weight for weight in self.weights if weight.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)

    def run(self, started: float, stop: threading.Event) -> bool:
        """
        Train to the end, or until `stop` is set.

        Args:
            started: time of [`time.monotonic`] from which `Options.seconds` are counted.
            stop: event that ends the training after the current step.

        Returns:
            Whether the training is complete.
        """
        state = load_state(self.state_file, self._facts())
        self._fit_batches()
        planner = Planner(self.corpus, self.schedule, self.batch_seconds, self.ratio, self.options.seed)
        if state is None:
            self.log.unlink(missing_ok=True)
            clock, stream = Clock(self._seconds_to_train(started), self.options.steps), PlanStream(planner)
            self._save_state(clock, stream)  # marks the folder as an unfinished run
        else:
            clock, stream = self._restore(state, planner)
        self._reported = time.monotonic()
        try:
            done = self._train(clock, stream, stop)
            self._save_state(clock, stream)
        finally:
            stream.close()
        self._save_average()
        model = self.options.out / "model"
        if done:
            self._evaluate(clock)
            self.state_file.unlink()
            print(f"{self.step} steps in {clock.elapsed:.0f} s. Try it: citrinet transcribe --model {model} FILE")
        else:
            print(f"stopped after {self.step} steps, {model} is what they gave; the same command goes on from there.")
        draw_log(self.log, self.log.with_suffix(".png"))
        return done

    def _train(self, clock: Clock, stream: PlanStream, stop: threading.Event) -> bool:
        """Run steps; returns whether the last was done."""
        saved, every = time.monotonic(), max(1, (self.options.steps or 0) // 20)
        form = "{desc}: {percentage:3.0f}% {bar} {elapsed}<{remaining}{postfix}"
        with tqdm(total=100, desc="training", bar_format=form, disable=None) as bar:
            while (progress := clock.progress(self.step)) < 1:
                if stop.is_set():
                    return False
                self._take_step(progress, stream)
                if time.monotonic() - self._reported >= REPORT_EVERY or (self.options.steps and self.step % every == 0):
                    bar.set_postfix(self._report(clock))
                    bar.update(100 * progress - bar.n)
                if self.evaluated < sum(point <= progress for point in self.options.evaluate_at):
                    self.evaluated += 1
                    self._evaluate(clock)
                    self._save_average()
                if time.monotonic() - saved >= SAVE_EVERY:
                    self._save_state(clock, stream)
                    saved = time.monotonic()
        return True

    def _take_step(self, progress: float, stream: PlanStream) -> None:
        """Train on one batch, without waiting for the device."""
        plan, rate = stream.next(progress), self.schedule.rate(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        masks = (0, 0) if self.schedule.is_early(progress) else self.masks
        self.model.model.spec_augment.freq_masks, self.model.model.spec_augment.time_masks = masks
        losses = self._losses(self.loader(plan))
        losses["loss"] = losses["tokens"] + self.schedule.auxiliary(progress) * losses["syllables"] + losses["tags"]
        torch.autograd.backward(self.scaler.scale(losses["loss"]))
        self.scaler.unscale_(self.optimizer)
        losses["gradient"] = nn.utils.clip_grad_norm_(self.weights, LARGEST_GRADIENT)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update()
        self.step += 1
        self.seconds += plan.seconds
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()

    def _losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Losses per label of the CTC head and the auxiliary heads, and the weighted loss of the tag heads."""
        config = self.model.config
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            output = self.model(batch.features, batch.mask, tag_labels=batch.tags, output_hidden_states=True)
            syllables = self.heads.loss(output.hidden_states, batch.frames, batch.syllables, batch.syllable_lengths)
        frames = -(-batch.frames // self.ratio)
        tokens = ctc_loss(
            output.logits, frames, batch.tokens, batch.token_lengths, config.pad_token_id, "sum", zero_infinity=True
        )
        labels, sounds = (max(1, int(x.numpy().sum())) for x in (batch.token_lengths, batch.syllable_lengths))
        return {"tokens": tokens / labels, "syllables": syllables * len(frames) / sounds, "tags": output.loss}

    def _report(self, clock: Clock) -> dict[str, str]:
        """Log means since the last report; only here are losses read from the device."""
        step, seconds, now = self._last[0], self._last[1], time.monotonic()
        count, span = self.step - step, now - self._reported
        means = {name: round(float(value) / count, 4) for name, value in self._sums.items()}
        rate = self.optimizer.param_groups[0]["lr"]
        speed = {"steps_per_second": count / span, "speech_per_second": (self.seconds - seconds) / span}
        self._write({"rate": rate, **means, **{name: round(value, 2) for name, value in speed.items()}}, clock)
        self._sums, self._last, self._reported = {}, (self.step, self.seconds), now
        return {"loss": f"{means['loss']:.3f}", "steps/s": f"{speed['steps_per_second']:.1f}"}

    def _evaluate(self, clock: Clock) -> None:
        """Evaluate the averaged weights, and log and print the scores."""
        with self.average.applied():
            scores = self.validation(self.model)
        self._write({"validation": scores}, clock)
        for name, values in scores.items():
            shown = ", ".join(f"{key} {100 * value:.1f} %" for key, value in values.items() if key != "recordings")
            tqdm.write(f"{name} ({values['recordings']:.0f}): {shown}")

    def _save_average(self) -> None:
        with self.average.applied():
            save_model(self.model, self.processor, self.options.out / "model")

    def _write(self, line: dict[str, Any], clock: Clock) -> None:
        line = {"step": self.step, "seconds": round(clock.elapsed, 1), **line}
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _seconds_to_train(self, started: float) -> float | None:
        """Time for training: what is left after reading, minus the final evaluation and saving; `None` if unlimited."""
        if self.options.seconds is None:
            return None
        begin = time.monotonic()
        self.validation(self.model)  # with random weights, to test and time the evaluation
        now = time.monotonic()
        return max(1.0, self.options.seconds - (now - started) - 1.2 * (now - begin) - SAVING)

    def _fit_batches(self) -> None:
        """Make batches smaller until the largest fit into the device's memory."""
        while self.device.type == "cuda":
            try:
                plans = Planner(self.corpus, self.schedule, self.batch_seconds, self.ratio).chunk(0.5)
                for longest in (max, min):
                    plan = longest(plans, key=lambda plan: int(plan.numbers["length"].max()))
                    torch.autograd.backward(list(self._losses(self.loader(plan)).values()))
                return
            except torch.OutOfMemoryError:
                self.batch_seconds *= 0.7
                print(f"batches do not fit into the device's memory: {self.batch_seconds:.0f} s in each instead")
            finally:
                self.optimizer.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()

    def _facts(self) -> dict[str, Any]:
        """Settings that must be the same for a run to be resumed."""
        return {
            "size": self.options.size,
            "seed": self.options.seed,
            "steps": self.options.steps,
            "utterances": len(self.corpus.texts),
            "tokens": sorted(self.processor.tokenizer.get_vocab()),
            "tags": self.corpus.tag_labels,
        }

    def _save_state(self, clock: Clock, stream: PlanStream) -> None:
        parts = {name: getattr(self, name).state_dict() for name in PARTS}
        chance = [torch.get_rng_state()] + ([torch.cuda.get_rng_state()] if self.device.type == "cuda" else [])
        state = {
            "facts": self._facts(),
            "step": self.step,
            "evaluated": self.evaluated,
            "clock": (clock.seconds, clock.elapsed),
            "batch_seconds": self.batch_seconds,
            "plans": stream.state_dict(),
            "chance": chance,
        }
        save_state(state | parts, self.state_file)

    def _restore(self, state: dict[str, Any], planner: Planner) -> tuple[Clock, PlanStream]:
        """Restore a state, and remove log lines written after it."""
        for name in PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.step, self.evaluated = state["step"], state["evaluated"]
        self._last = (self.step, self.seconds)
        self.batch_seconds = planner.batch_seconds = self.options.batch_seconds or state["batch_seconds"]
        torch.set_rng_state(state["chance"][0])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["chance"][1])
        lines = self.log.read_text(encoding="utf-8").splitlines(keepends=True) if self.log.exists() else []
        self.log.write_text("".join(line for line in lines if json.loads(line)["step"] <= self.step), encoding="utf-8")
        print(f"going on after {self.step} steps")
        seconds, elapsed = state["clock"]
        return Clock(seconds, self.options.steps, elapsed), PlanStream(planner, state["plans"])
