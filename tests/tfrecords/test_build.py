"""The program alexnet-tfrecords, in a process of its own."""

from programs import run


def test_help_describes_every_flag():
    output = run("tfrecords.build", "--help").stdout
    for name in ("source", "data_dir", "image_px", "encoding", "quality", "num_processes", "max_bad_fraction"):
        assert f"--{name}: " in output
    assert "tfds:NAME" in output


def test_unknown_source_ends_with_an_error_that_names_it(tmp_path):
    result = run("tfrecords.build", "--source=nothing", f"--data_dir={tmp_path / 'data'}", "--image_px=48")
    assert result.returncode != 0
    assert "Received: 'nothing'" in result.stderr


def test_flags_that_say_nothing_to_do_are_refused():
    result = run("tfrecords.build", "--data_dir=somewhere")
    assert result.returncode != 0
    assert "--source and --data_dir to build" in result.stdout + result.stderr
