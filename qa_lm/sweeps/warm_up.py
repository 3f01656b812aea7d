"""Import what training imports, and read what each run reads first: the jobs of a sweep are forked after that.

Nothing here may start threads; `qa_lm.sweeps.processes.fork_server` would refuse to fork.
"""

import importlib

from hydra.core.override_parser.overrides_parser import OverridesParser

from qa_lm.config.trainer_arguments import trainer_parameters
from qa_lm.reporting.pages import read_templates

MODULES = (
    *("qa_lm.training.train", "qa_lm.training.trainer"),
    *("qa_lm.reporting.loss_curve", "qa_lm.reporting.run.next_steps", "qa_lm.reporting.run.report"),
    "qa_lm.reporting.run.table",
    # What these import in functions, because other commands do not need it.
    *("datasketch", "pandas", "sklearn.feature_extraction.text", "sklearn.linear_model", "sklearn.isotonic"),
    *("matplotlib.font_manager", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg"),
    *("transformers.models.gpt2.modeling_gpt2", "transformers.models.llama.modeling_llama"),
    *("tensorboard.plugins.hparams.metadata", "torch.utils.tensorboard.summary", "torch.profiler._cupti_monitor"),
)


def warm_up() -> None:
    """See above. Other versions of the libraries may lack some of the modules."""
    for name in MODULES:
        try:
            importlib.import_module(name)
        except ImportError:
            if name.startswith("qa_lm."):
                raise
    trainer_parameters()
    read_templates("report.j2")
    OverridesParser.create().parse_override("a.b=1")


warm_up()
