"""Rehearsal: playbooks played on a simulated site in virtual time, by the operator that runs them in earnest."""
