"""Print the parameters and multiply-adds of a network, layer by layer.

    python scripts/profile_model.py --model resnet50_v1d
"""

import dataclasses
import json

from gluon_tricks import cli
from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import from_flags, resolve_without_data
from gluon_tricks.config.flags import add_flags


def main() -> None:
    parser = cli.Parser(description=__doc__.splitlines()[0])
    add_flags(parser, Settings, only=("model", "num_classes", "input_size", "use_se", "batch_norm",
                                   "use_gn"))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    flags = parser.parse_args()
    settings = resolve_without_data(from_flags(flags))

    from gluon_tricks.classification.network import (
        build_network,  # late: MXNet takes seconds to import
    )
    from gluon_tricks.models.profile import profile

    size = settings.input_size
    result = profile(build_network(settings), (3, size, size))
    if flags.json:
        print(json.dumps({"model": settings.model, "input_size": size,
                          "parameters": result.parameters, "multiply_adds": result.multiply_adds,
                          "layers": [dataclasses.asdict(layer) for layer in result.layers]}))
        return
    print(f"{'layer':32} {'kind':16} {'output':>16} {'parameters':>12} {'multiply-adds':>15}")
    for layer in result.layers:
        shape = "x".join(map(str, layer.output))
        print(f"{layer.name:32} {layer.kind:16} {shape:>16} {layer.parameters:12,} "
              f"{layer.multiply_adds:15,}")
    print(f"{settings.model} at {size}x{size}: {result.parameters:,} parameters, "
          f"{result.multiply_adds / 1e9:.3f} G multiply-adds")


if __name__ == "__main__":
    cli.run(main)
