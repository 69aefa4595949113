"""`python -m attentive_probes.cli`, also under `accelerate launch -m` and `torchrun -m`."""

from attentive_probes.cli.main import app

app()
