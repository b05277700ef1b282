import io
import sys

import pytest

from dfl.report.throughput_bar import ThroughputBar
from tests.report.tiny_run import TinyData, TinyTask, tiny_trainer


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run_all(root, bar):
    trainer = tiny_trainer(root, enable_progress_bar=True, callbacks=[bar])
    task, data = TinyTask(), TinyData()
    trainer.fit(task, data)
    trainer.validate(task, data, verbose=False)
    trainer.test(task, data, verbose=False)
    trainer.predict(task, data)


def test_throughput_bar__piped_writes_a_plain_line_an_epoch(tmp_path, capsys):
    bar = ThroughputBar()
    run_all(tmp_path, bar)
    out, err = capsys.readouterr()
    assert "\r" not in out + err
    assert "it/s" not in out + err
    lines = [line for line in err.splitlines() if "images/s" in line]
    heads = [line.split(":")[0] for line in lines]
    assert heads == ["val", "train epoch 0", "val", "test", "predict"]
    assert all(line.split(": ")[1].startswith("8 images, ") for line in lines)
    assert "train/loss" in lines[1]
    assert set(bar.images_per_s) == {"train", "val", "test", "predict"}
    assert all(rate > 0 for rate in bar.images_per_s.values())


def test_throughput_bar__terminal_shows_a_bar_with_images_per_second(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    run_all(tmp_path, ThroughputBar())
    last = {}
    for piece in terminal.getvalue().replace("\n", "\r").split("\r"):
        if "images/s" in piece:
            last[piece.split(":")[0].split(" ")[0]] = piece
    assert {"Epoch", "Validation", "Testing", "Predicting"} <= set(last)
    assert "train/loss" in last["Epoch"]


def test_throughput_bar__says_lines_on_long_work(tmp_path, capsys):
    run_all(tmp_path, ThroughputBar(every_s=0.0))
    assert "test: 4 images, " in capsys.readouterr().err.replace("images/s, batch 2 of 4", "")


def test_throughput_bar__refresh_rate_0_is_silent(tmp_path, capsys):
    run_all(tmp_path, ThroughputBar(refresh_rate=0))
    assert "images/s" not in "".join(capsys.readouterr())


def test_throughput_bar__counts_the_images_of_all_processes(tmp_path, monkeypatch):
    bar = ThroughputBar()
    trainer = tiny_trainer(tmp_path, enable_progress_bar=True, callbacks=[bar])
    monkeypatch.setattr(type(trainer), "world_size", 3)
    seen = []
    monkeypatch.setattr(bar, "_say", lambda stage, trainer, *more: seen.append(bar._clocks[stage]))
    bar._trainer = trainer
    trainer.test(TinyTask(), TinyData(), verbose=False)
    assert seen[-1].images == pytest.approx(3 * 8)
