"""Random faults on real servers, and a judge of every answer: see docs/chaos.md."""
