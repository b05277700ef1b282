"""The command `study`: every backbone with every head, trained and tested across datasets."""

import time
from pathlib import Path
from typing import Literal

from lightning.pytorch.loggers import Logger, WandbLogger
from sklearn.pipeline import Pipeline

import dfl.app.register  # noqa: F401  short names of classes
from dfl.app.parser import resolved_config
from dfl.app.prediction import device_numbers
from dfl.backbones import Backbone
from dfl.backbones.precision import Precision
from dfl.data import Crop, ImageDataModule
from dfl.data.checks.matched import find_matched
from dfl.data.images.transforms import Augmentation
from dfl.data.manifest.provenance import with_provenance
from dfl.errors import ConfigError, named
from dfl.heads.tasks.finetune import FineTuneTask
from dfl.heads.tasks.tune import TuneTask
from dfl.processes import launched_rank
from dfl.study.design.grid import ConditionUse, Grid, condition_plan, grid_cells
from dfl.study.design.settings import Claim, Settings, check_names
from dfl.study.design.training_sets import TrainOn, training_sets
from dfl.study.publish import publish
from dfl.study.run.baselines import Baselines, FineTuning
from dfl.study.run.features import (
    Draws,
    FeatureFolders,
    check_draws,
    drawn_conditions,
    frames_by_seed,
)
from dfl.study.run.missing import run_missing
from dfl.study.run.plan import plan_study
from dfl.study.run.study import Study
from dfl.study.run.workers import choose_workers


def study(
    data: ImageDataModule,
    backbones: dict[str, Backbone],
    out: Path,
    *,
    heads: dict[str, list[Pipeline]],
    reductions: dict[str, list[Pipeline]] | None = None,
    grids: dict[str, Grid] | None = None,
    baselines: dict[str, FineTuneTask | TuneTask] | None = None,
    finetuning: FineTuning | None = None,
    conditions: dict[str, list[Augmentation]] | None = None,
    condition_use: list[ConditionUse] | None = None,
    crops: dict[str, Crop] | None = None,
    draws: dict[str, Draws] | None = None,
    train_on: list[TrainOn] | None = None,
    families: dict[str, list[str]] | None = None,
    sources: dict[str, list[str]] | None = None,
    matched: list[str] | None = None,
    validation: Literal["split", "nested"] | None = None,
    max_fpr: float = 0.05,
    seeds: list[int] | None = None,
    claims: list[Claim] | None = None,
    metric: str = "accuracy_at_val_threshold",
    replicates: int = 1000,
    title: str = "Which detector generalises?",
    features_dir: Path | None = None,
    jobs: int | None = None,
    executor: Literal["processes", "dask"] = "processes",
    scheduler: str | None = None,
    plan_only: bool = False,
    logger: Logger | None = None,
    precision: Precision | None = None,
    accelerator: str = "auto",
    devices: int | str = "auto",
    num_nodes: int = 1,
    strategy: str = "auto",
) -> Path | None:
    """Train every head on every set of features, test all across datasets, and report.

    The plan is printed first. Every image goes through every backbone once for each condition;
    fusions, layers, heads, training sets and seeds cost no forward pass. Cells are fitted in
    parallel, and each is kept when it is done: a study that was stopped goes on where it was, and
    an unchanged one does nothing. OUT holds report.html, results.csv and
    results.parquet, the chosen detector (best/, for `dfl detect`), the finished cells, and the
    features.

    Head, hyper-parameters and threshold are chosen on validation images alone.

    Args:
        data: The images of all datasets: pairs, a manifest or a folder tree.
        backbones: Frozen backbones by name, with the layers to keep.
        out: Folder of the study.
        heads: By name a list of candidates, of which validation chooses one: class_path is a
            function of dfl.heads.estimators.
        reductions: By name a list of candidates between features and head: class_path is a
            function of dfl.heads.estimators; an empty list is no reduction. None at all by default.
        grids: Parts of the study in which every choice meets every other, by name; one of
            everything by default. The axes' effects are computed on the first.
        baselines: Networks that are trained on images, by name, for comparison: class_path is
            dfl.heads.FineTuneTask, end to end, or dfl.heads.TuneTask, a little of a backbone.
            data.train_transforms and data.train_crop are for these alone.
        finetuning: How long the baselines are trained.
        conditions: Transforms by name of the condition; the first is how images come. By default
            there is one condition, none, without transforms.
        condition_use: Whether a condition is for training and testing (both), training alone
            (train) or testing alone (test); both by default.
        crops: By name of a condition, what is seen of its images in place of data.crop: one square
            or several, whose features are averaged.
        draws: By name, degraded or otherwise random draws of the training images, from all of which
            a head learns; each name is one more condition of training.
        train_on: Training sets: each dataset, all of them (combined), all_but_one, all without
            one generator (all_but_one_generator); or all without a family of generators
            (leave_one_family_out), without a source of photographs (leave_one_source_out), and
            without both of a dataset (leave_one_family_and_source_out), which is then tested on all
            of its images; each and combined by default.
        families: By the name of a family, the generators that belong to it; every other generator
            is a family of its own, unless the manifest has a column family.
        sources: By the name of a source of photographs, the datasets that they are in, or patterns
            of their paths; by default datasets that share photographs are one source, unless the
            manifest has a column source.
        matched: Datasets whose real and generated images come from one pipeline and show the same
            subjects: the first result of a study that leaves families and sources out is of these.
            By default they are told by a look at formats, sizes and colours.
        validation: On which images choices are made: those of the split val, or in turn on families
            and sources that are left out (nested), which is the default where train_on leaves
            families or sources out.
        max_fpr: Where validation is nested, the share of photographs of any source, new to the
            head, that may be called fake at the threshold.
        seeds: Seeds of splits, reductions and heads; the first is the data's own seed by default.
        claims: Statements about the levels of an axis, which the report tests.
        metric: The metric that choices, effects and claims rest on, a column of results.csv;
            accuracy_at_val_threshold is the accuracy on test images at the threshold chosen on
            validation, accuracy that at the head's own threshold.
        replicates: Bootstrap replicates behind each interval.
        title: Title of the report.
        features_dir: Folder of the features, which studies may share; OUT/features by default.
        jobs: Processes that fit cells, one thread each; one for each core by default.
        executor: Whether cells are fitted in processes of this machine, or by the workers of a Dask
            cluster, which need the extra [dask] and see the same folders; configs/slurm has a
            script.
        scheduler: Address of Dask's scheduler, as tcp://10.0.0.1:8786, or its scheduler file.
        plan_only: Print the plan and stop.
        logger: Lightning's W&B logger, as in configs/logger, for tables and the report.
        precision: Numeric precision of the backbones and baselines, auto for what the hardware is
            fast at; by default auto on an accelerator, and 32-true on a CPU.
        accelerator: Lightning's accelerator for the backbones and the baselines.
        devices: Number of devices on each node, or auto; the baselines are trained on those of the
            first node, one network a device.
        num_nodes: Number of nodes.
        strategy: Lightning's strategy.

    Returns:
        The report; None with `plan_only`, and on all processes but the first.

    Raises:
        ConfigError: If an axis is empty or names something unknown.
        DflError: If images, weights or features cannot be used.
    """
    if logger is not None and not isinstance(logger, WandbLogger):
        raise ConfigError(
            f"logger: {type(logger).__name__} has no tables and pages; "
            "give lightning.pytorch.loggers.WandbLogger, or none: results.csv is written anyway"
        )
    conditions = conditions or {"none": []}
    crops, draws = crops or {}, draws or {}
    reductions = reductions or {"none": []}
    settings = Settings(
        out=out,
        title=title,
        metric=metric,
        replicates=replicates,
        claims=claims or [],
        config=resolved_config(),
    )
    check_names(conditions=conditions, heads=heads, reductions=reductions, backbones=backbones)
    check_names(baselines=baselines or {}, draws=draws, may_be_empty=True)
    if unknown := [name for name in crops if name not in conditions]:
        raise ConfigError(
            f"crops: no condition {', '.join(unknown)}; there are: {', '.join(conditions)}"
        )
    if crops and baselines:
        raise ConfigError("crops: baselines see images by data.crop alone; leave one of them out")
    check_draws(draws, conditions, data)
    if not 0 <= max_fpr < 1:
        raise ConfigError(f"max_fpr: a share must be in [0, 1), got {max_fpr}")
    train_on = train_on or ["each", "combined"]
    frames = {
        seed: with_provenance(frame, families, sources)
        for seed, frame in frames_by_seed(data, seeds or [data.seed]).items()
    }
    tested = condition_plan(list(conditions), condition_use or ["both"], list(draws))
    features = FeatureFolders(
        data,
        backbones,
        conditions,
        (features_dir or out / "features").absolute(),  # workers may be elsewhere
        precision,
        accelerator=accelerator,
        crops=crops,
        draws=draws,
    )
    sets = training_sets(next(iter(frames.values())), train_on)
    leaves_out = any(each.left_out is not None for each in sets.values())
    cells = grid_cells(
        grids or {"frozen": Grid()},
        layers=features.layers,
        reductions=list(reductions),
        heads=list(heads),
        train_sets=list(sets),
        train_conditions=list(tested),
        seeds=list(frames),
    )
    whole = Study(
        frames,
        features.conditions,
        tested,
        sets,
        reductions,
        heads,
        (out / "cells").absolute(),
        nested=validation == "nested" or (validation is None and leaves_out),
        matched=_matched(matched, data, needed=leaves_out),
        max_fpr=max_fpr,
        draws=drawn_conditions(draws),
    )
    numbers = device_numbers(accelerator, devices)
    networks = Baselines(
        baselines or {},
        finetuning or FineTuning(),
        whole,
        data,
        conditions,
        out=out,
        accelerator=accelerator,
        devices=numbers,
        precision=features.precision,
    )
    if launched_rank():  # it helps with the features; all else the first process does
        if not plan_only:
            features.extract(accelerator, devices, num_nodes, strategy)
        return None
    with choose_workers(executor, scheduler, jobs) as workers:
        start = time.monotonic()
        plan = plan_study(
            cells,
            whole,
            features,
            networks,
            processes=workers.count,
            devices=len(numbers) * num_nodes,
        )
        print(f"{title}\n{plan}", flush=True)
        if plan_only:
            return None
        features.extract(accelerator, devices, num_nodes, strategy)
        prepared_s = time.monotonic() - start
        publish(
            run_missing(cells, whole, workers, networks),
            whole,
            settings,
            workers,
            plan=plan,
            baselines=networks,
            manifest=data.manifest,
            prepared_s=prepared_s,
            logger=logger,
        )
    return settings.page


def _matched(declared: list[str] | None, data: ImageDataModule, *, needed: bool) -> tuple[str, ...]:
    """Name the matched datasets: those that the config declares, else those that look like it."""
    if declared is not None:
        known = set(data.manifest.frame["dataset"])
        if odd := [name for name in declared if name not in known]:
            raise ConfigError(f"matched: no dataset {named(odd)}; there are {named(sorted(known))}")
        return tuple(declared)
    if not needed or launched_rank():
        return ()
    judged = find_matched(data.manifest)
    for each in judged:
        print(f"{each.dataset}: {'matched' if each.matched else 'not matched'}, {each.why}")
    return tuple(each.dataset for each in judged if each.matched)
