"""docker/compose.yaml is what docker/README.md promises."""

from pathlib import Path

import pytest
import yaml

DOCKER = Path(__file__).parents[2] / "docker"
SERVICES = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_a_service(name):
    service = SERVICES[name]
    assert service["image"] == f"gluon-tricks:{name}"
    build = service["build"]
    context = (DOCKER / build["context"]).resolve()
    assert (context / build["dockerfile"]).samefile(DOCKER / "Dockerfile")
    assert build["target"] == name
    assert service["user"] == "${USER_ID:-1000}:${GROUP_ID:-1000}"
    assert service["shm_size"] == "8gb"
    assert service["ulimits"] == {"memlock": -1, "stack": 64 << 20}
    assert service["stop_grace_period"] == "5m"  # Docker's 10 seconds may end a save
    assert [volume.rsplit(":", 1)[1] for volume in service["volumes"]] == ["/data", "/runs"]
    assert "command" not in service and "entrypoint" not in service  # the image's


def test_the_gpu_service_alone_takes_gpus():
    device, = SERVICES["gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert "deploy" not in SERVICES["cpu"]
