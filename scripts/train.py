"""Train: `python scripts/train.py [group=choice] [key=value] [-m]`; the settings are in conf/ and qa_lm/config.py."""

import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from qa_lm.config import register_schema, typed_config
from qa_lm.config_errors import check_defaults_lists, explain, is_configuration_error
from qa_lm.errors import UserError

CONF = Path(__file__).resolve().parent.parent / "conf"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def run(composed: DictConfig) -> float:
    """One job: train, draw, print. Returns the value a sweeper optimises."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        check_defaults_lists(CONF, HydraConfig.get().runtime.choices)
        config = typed_config(composed)
        # Imported late: a mistake in the configuration is answered in a second.
        from qa_lm.reporting.loss_curve import draw_loss_curve
        from qa_lm.reporting.table import answers_table
        from qa_lm.training.train import train

        result = train(config, folder)
    except UserError:
        _remove_if_empty(folder)
        raise
    draw_loss_curve(folder)
    print(f"\n{answers_table(folder)}\n\n{folder}", flush=True)
    return result.objective


def main() -> int:
    """Run Hydra; turn what the user can mend into one or two lines. Returns the exit code."""
    register_schema()
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra hand exceptions over instead of printing them
    try:
        run()
    except Exception as error:
        if wants_traceback or not is_configuration_error(error):
            raise
        print(f"error: {explain(error, CONF, sys.argv[1:])}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _remove_if_empty(folder: Path) -> None:
    """Take back the folder that Hydra made for a run that never began, and its date's folder."""
    for path in (folder, folder.parent):
        try:
            path.rmdir()
        except OSError:
            return


if __name__ == "__main__":
    sys.exit(main())
