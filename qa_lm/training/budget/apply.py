"""Apply `budget.time` to a run whose steps have been measured."""

from dataclasses import replace

from qa_lm.config.schema import TrainConfig
from qa_lm.data.prepare import PreparedData
from qa_lm.training.budget.choose import Times, choose_epochs, wanted_epochs, with_epochs
from qa_lm.training.budget.guard import guard_of
from qa_lm.training.budget.rest import seconds_after
from qa_lm.training.budget.smaller import SmallerModel, smaller_model
from qa_lm.training.budget.ways_out import sizes_of
from qa_lm.training.build import Task
from qa_lm.training.estimate import Estimate
from qa_lm.training.hardware import device_of
from qa_lm.training.trainer import TrainerSetup

NOT_MEASURED = (
    "note: budget.time chooses no epochs here, because the steps of several processes are not measured before "
    "training; training stops after the last epoch that fits, wherever the schedule is then"
)


def budgeted(
    config: TrainConfig,
    given: TrainConfig,
    prepared: PreparedData,
    task: Task,
    setup: TrainerSetup,
    estimate: Estimate | None,
    asked_seconds: float,
) -> tuple[TrainConfig, Task, Estimate | None]:
    """Choose the epochs that fit `budget.time`, apply them to the settings, the task and the Trainer, and say so.

    Nothing changes without a budget, and for a run that is resumed from a checkpoint, whose epochs are chosen.

    Args:
        config: settings without open (null) values.
        given: the settings as they were given.
        prepared: the pairs.
        task: module and data.
        setup: the Trainer and its callbacks.
        estimate: what was measured; None if nothing was.
        asked_seconds: seconds of the questions to a pretrained model before training.

    Raises:
        UserError: not even one epoch fits.
        SmallerModel: to train a smaller model instead, whose size was left open.
    """
    guard = guard_of(setup.trainer)
    if guard is None:
        return config, task, estimate
    if estimate is None:
        if setup.trainer.world_size > 1 and setup.trainer.is_global_zero:
            print(NOT_MEASURED, flush=True)
        return config, task, estimate
    device = device_of(config.trainer)
    after = seconds_after(config, prepared, task, device, asked_seconds, guard.clock())
    wanted = wanted_epochs(config, given, task, setup.trainer)
    times = Times(guard.seconds, guard.used_seconds, estimate.epoch_seconds, after.learnt)
    if times.epochs < wanted.needed:
        times = replace(times, after=after.not_learnt)
    guard.after_seconds = times.after
    if smaller := smaller_model(config, given, prepared.sizes(), times, wanted):
        raise SmallerModel(smaller)
    choice = choose_epochs(times, wanted, sizes_of(config, prepared, task))
    print("\n".join(choice.lines), flush=True)
    config, task = with_epochs(config, task, setup.trainer, choice)
    estimate = replace(estimate, epochs=min(estimate.epochs, task.estimated_epochs))
    guard.planned_seconds = times.total(min(estimate.epochs, max(1, times.epochs)))
    return config, task, estimate
