"""What a run would need on 1 to 1,024 devices, without training; docs/plan.md has the formulas."""
