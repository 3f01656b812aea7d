"""`hydra/launcher=processes`: every job of a sweep in a process of its own.

- Hydra imports each module here at every start, and does it again if it was imported before, so that classes would
  exist twice; it leaves out names that begin with an underscore. Only `launcher`, quick to import, is for Hydra.
- `_jobs` keeps a job's record in the sweep folder, `_process` starts and ends one, `_pool` runs several at a time,
  `_progress` tells people, `_points` makes jobs of what the sweeper asks for.
"""
