"""Convert Hydra's sweep syntax to Optuna's search space.

| on the command line | Optuna |
|---|---|
| `key=a,b` or `choice(a,b)` | one of these values, as text |
| `range(1,9,2)` | 1, 3, 5 or 7: as in Python, the end is excluded |
| `interval(0,1)` | a number |
| `tag(log, interval(1e-5,1e-2))` | a number, uniform on a logarithmic scale |
| `int(interval(1,8))`, `tag(log, int(interval(1,1024)))` | an integer, including the end |
"""

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)


def search_space(overrides: list[Override]) -> tuple[dict[str, BaseDistribution], list[str]]:
    """Return the search space, a distribution per key, and the overrides that all jobs share.

    Args:
        overrides: all overrides of the sweep. Of two with the same key, the later one is used.

    Raises:
        HydraException: no override sweeps, or a range is empty.
    """
    last = {each.get_key_element(): each for each in overrides}
    space = {key: _distribution(each) for key, each in last.items() if each.is_sweep_override()}
    if not space:
        raise HydraException(
            "hydra/sweeper=optuna: no setting to search; add one, such as optimizer.lr='interval(1e-5,1e-2)'"
        )
    fixed = [str(each.input_line) for each in last.values() if not each.is_sweep_override()]
    return space, fixed


def as_override(key: str, value: object) -> str:
    """Format a chosen value as an override for a job."""
    return f"{key}={value!r}" if isinstance(value, float) else f"{key}={value}"


def _distribution(override: Override) -> BaseDistribution:
    sweep = override.value()
    log = "log" in getattr(sweep, "tags", ())
    try:
        if isinstance(sweep, IntervalSweep):
            assert sweep.start is not None
            assert sweep.end is not None
            if isinstance(sweep.start, int) and isinstance(sweep.end, int):
                return IntDistribution(sweep.start, sweep.end, log=log)
            return FloatDistribution(float(sweep.start), float(sweep.end), log=log)
        if isinstance(sweep, RangeSweep):
            values = list(sweep.range())
            if not values:
                raise ValueError("the range is empty")
            if all(isinstance(each, int) for each in values):
                low, high = min(values), max(values)
                return IntDistribution(int(low), int(high), step=1 if log else abs(int(sweep.step)), log=log)
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except ValueError as error:
        raise HydraException(f"{override.input_line}: {error}") from None
