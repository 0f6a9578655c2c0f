"""A simulated hospital: raw files in the form of MIMIC-III, of patients who never lived.

For methods, engineering and tests; never for clinical conclusions. See ``docs/simulator.md``.
"""

from synehrgy.sources.simulator.simulation import SimulationSummary, simulate

__all__ = ["SimulationSummary", "simulate"]
