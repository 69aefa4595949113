import pytest

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.cli.main import app

LABELS = ["band 0", "band 1", "band 2"]


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line; exit code, standard output and standard error."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["attentive-probes", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            app()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return call


@pytest.fixture
def probe_folder(tiny_backbone, tmp_path):
    probe = ProbeForImageClassification.from_backbone(
        tiny_backbone("vit"), HeadConfig("ep", {"num_queries": 4}), labels=LABELS
    )
    probe.save_pretrained(tmp_path / "probe")
    return tmp_path / "probe"
