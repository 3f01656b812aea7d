"""Where the settings files are: `conf/` of a checkout, `qa_lm/conf` of an installed package."""

from pathlib import Path


def conf_folder() -> Path:
    """The folder that holds train.yaml and the groups.

    Raises:
        FileNotFoundError: the package was installed without it.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(f"{package / 'conf'}: the settings files are missing; install qa_lm again")
