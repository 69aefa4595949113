"""`attentive-probes export`."""


def test_a_saved_probe_becomes_a_file(run, probe_folder, tmp_path):
    """The command says what goes in and out, how large the file is and how far from the probe."""
    output = tmp_path / "probe.pt2"
    code, said, _ = run("export", probe_folder, "--output", output, "--attention")
    assert code == 0 and "pixel_values: float32 (B, 3, 16, 16) -> logits, attention" in said
    assert output.exists() and "differs from the probe by" in said


def test_a_wrong_ending_is_one_sentence(run, probe_folder, tmp_path):
    """A file of unknown form is refused with those that are known."""
    code, _, error = run("export", probe_folder, "--output", tmp_path / "probe.tflite")
    assert code == 2 and "must end in one of .onnx, .pt2, .xml" in error
