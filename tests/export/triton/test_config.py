"""Configurations are what Triton's own schema allows."""

from __future__ import annotations

import json
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("onnx")

from immunogate.export.triton.config import Deployment, Step, Tensor, ensemble_config, model_config
from immunogate.export.triton.pbtxt import Nested, Word, text

Read = Callable[[str], dict[str, Any]]
ABOUT = {"bundle": 'a "quoted" name\\', "mode": "expected"}
INPUTS, OUTPUTS = [Tensor("face", (1, 112, 112)), Tensor("probabilities", (40,))], [Tensor("planes", (3, 112, 96))]


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt"])
def test_a_model_says_what_it_takes_and_how_it_is_batched(backend: str, read_config: Read) -> None:
    found = read_config(model_config("purifier", INPUTS, OUTPUTS, Deployment(8, backend, ABOUT)))
    assert (found["name"], found["backend"], found["max_batch_size"]) == ("purifier", "onnxruntime", 8)
    assert found["input"] == [
        {"name": "face", "data_type": "TYPE_FP32", "dims": [1, 112, 112]},
        {"name": "probabilities", "data_type": "TYPE_FP32", "dims": [40]},
    ]
    assert found["output"] == [{"name": "planes", "data_type": "TYPE_FP32", "dims": [3, 112, 96]}]
    assert found["dynamic_batching"]["max_queue_delay_microseconds"] > 0
    assert found["instance_group"] == [{"count": 1, "kind": "KIND_GPU" if backend == "tensorrt" else "KIND_AUTO"}]
    assert [entry["batch_size"] for entry in found["model_warmup"]] == [1, 8]
    assert set(found["model_warmup"][0]["inputs"]) == {"face", "probabilities"}
    assert found["parameters"]["bundle"] == {"string_value": ABOUT["bundle"]}
    accelerators = found.get("optimization", {}).get("execution_accelerators", {})
    assert bool(accelerators) == (backend == "tensorrt")
    if accelerators:
        (accelerator,) = accelerators["gpu_execution_accelerator"]
        assert accelerator["name"] == "tensorrt"
        assert accelerator["parameters"]["trt_profile_max_shapes"] == "face:8x1x112x112,probabilities:8x40"
        assert accelerator["parameters"]["trt_profile_min_shapes"] == "face:1x1x112x112,probabilities:1x40"


def test_one_face_at_a_time_needs_no_queue(read_config: Read) -> None:
    found = read_config(model_config("purifier", INPUTS, OUTPUTS, Deployment(1, "onnxruntime", {})))
    assert "dynamic_batching" not in found
    assert [entry["batch_size"] for entry in found["model_warmup"]] == [1]


def test_an_ensemble_has_steps_and_no_instances(read_config: Read) -> None:
    steps = [Step("a", {"x": "face"}, {"y": "middle"}), Step("a", {"x": "middle"}, {"y": "planes"})]
    found = read_config(ensemble_config("all", INPUTS[:1], OUTPUTS, steps, Deployment(4, "onnxruntime", ABOUT)))
    assert found["platform"] == "ensemble"
    assert not {"backend", "instance_group", "dynamic_batching", "model_warmup"} & set(found)
    assert found["ensemble_scheduling"]["step"][1] == {
        "model_name": "a", "model_version": -1, "input_map": {"x": "middle"}, "output_map": {"y": "planes"},
    }  # fmt: skip


@given(st.text(alphabet=st.characters(max_codepoint=0x7E, exclude_categories=["Cs"])))
def test_any_text_comes_back(read_config: Read, words: str) -> None:
    assert read_config(text([("name", words)])) == {"name": words}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ('nmae: "a"', "no field 'nmae'"),
        ('name: "a" name: "b"', "comes twice"),
        ("name: a", "no string"),
        ("max_batch_size: true", "no int"),
        ("input { data_type: FP32 }", "no DataType"),
        ('input { name: "a"', "not closed"),
        ("input { dims: [1, 2 }", "no int"),
        ('parameters { key: "a" value: "b" }', "expected a ModelParameter"),
        ('parameters { key: "a" }', "no entry"),
        ("}", "no field '}'"),
        ("name: @", "not understood"),
    ],
)
def test_the_reader_of_these_tests_is_strict(config: str, words: str, read_config: Read, malformed: Any) -> None:
    with pytest.raises(malformed, match=words):
        read_config(config)


def test_the_writer_quotes_all_but_words() -> None:
    nested = Nested(("kind", Word("KIND_CPU")), ("gpus", [0, 1]))
    assert text([("name", 'a"b'), ("group", nested), ("on", True)]) == (
        'name: "a\\"b"\ngroup {\n  kind: KIND_CPU\n  gpus: [0, 1]\n}\non: true'
    )


CHECK = """
import json, sys
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as triton

found = {}
for name, content in json.load(sys.stdin).items():
    config = text_format.Parse(content, triton.ModelConfig())
    found[name] = [config.name, config.max_batch_size, len(config.input), len(config.ensemble_scheduling.step)]
messages = {}
pending = [triton.ModelConfig.DESCRIPTOR]
while pending:
    message = pending.pop()
    if message.full_name not in messages:
        messages[message.full_name] = [field.name for field in message.fields]
        pending += [field.message_type for field in message.fields if field.message_type]
print(json.dumps([found, list(messages.items())]))
"""


@pytest.fixture(scope="module")
def tritons_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has Triton's client, and with it the configuration's protocol buffers."""
    folder = tmp_path_factory.mktemp("triton") / "venv"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "tritonclient[grpc]>=2.40"], check=True, timeout=600)
    return python


@pytest.mark.fetch
def test_tritons_own_reader_takes_them_and_has_this_schema(
    tritons_python: Path, schema: dict[str, dict[str, str]]
) -> None:
    steps = [Step("a", {"x": "face"}, {"y": "planes"})]
    configs = {
        backend: model_config("purifier", INPUTS, OUTPUTS, Deployment(8, backend, ABOUT))
        for backend in ("onnxruntime", "tensorrt")
    }
    configs["ensemble"] = ensemble_config("all", INPUTS, OUTPUTS, steps, Deployment(4, "onnxruntime", ABOUT))
    done = subprocess.run(
        [tritons_python, "-c", CHECK], input=json.dumps(configs), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found, messages = json.loads(done.stdout)
    assert found == {
        "onnxruntime": ["purifier", 8, 2, 0],
        "tensorrt": ["purifier", 8, 2, 0],
        "ensemble": ["all", 4, 2, 1],
    }
    theirs: dict[str, set[str]] = {}
    for full_name, fields in messages:
        theirs.setdefault(full_name.rpartition(".")[2], set()).update(fields)
    for message, fields in schema.items():
        assert set(fields) <= theirs[message], message
