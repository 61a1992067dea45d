"""The training commands that GluonCV publishes with its classifiers' scores, by name.

From dmlc/web-data, gluoncv/logs/classification/{imagenet,cifar}/NAME.sh, without the interpreter
and the script; the records' folder is R. Commands that differ only in flags' order share one.
"""

_REC = ("--rec-train R/train.rec --rec-train-idx R/train.idx "
        "--rec-val R/val.rec --rec-val-idx R/val.idx ")
_FOUR_GPUS = ("--batch-size 64 --num-gpus 4 -j 32 --mode hybrid --num-epochs 150 --lr 0.1 "
              "--momentum 0.9 --wd 0.0001 --lr-decay 0.1 --lr-decay-epoch 30,60,90 --model ")
_VGG = ("--batch-size 32 --num-gpus 8 -j 64 --mode hybrid --num-epochs 100 --lr 0.01 "
        "--lr-decay 0.1 --lr-decay-epoch 50,80 --model ")
_MOBILENET = (_REC + "--model {0} --mode hybrid --lr 0.4 --lr-mode cosine --num-epochs 120 "
              "--batch-size 128 --num-gpus 8 -j 60 --use-rec --dtype float16 --warmup-epochs 5 "
              "--no-wd --label-smoothing --save-dir params_{0} --logging-file {0}.log")
_MOBILENET_V2 = ("--batch-size 40 --num-gpus 4 -j 32 --mode hybrid --num-epochs 480 --lr 0.045 "
                 "--wd 0.00004 --lr-decay 0.98 --lr-decay-period 1 --model ")
_MOBILENET_V3 = (_REC + "--model {0} --mode hybrid --wd 0.00003 --lr 2.6 --lr-mode cosine "
                 "--num-epochs 360 --batch-size 256 --num-gpus 8 -j 96 --warmup-epochs 5 "
                 "--dtype float16 --no-wd --last-gamma --use-rec --label-smoothing "
                 "--save-dir params_{0} --logging-file {0}.log")
_MIXUP = (_REC + "--model {0} --mode hybrid {1}--lr 0.4 --lr-mode cosine --num-epochs 200 "
          "--batch-size 128 --num-gpus 8 -j 60 --use-rec --dtype float16 --warmup-epochs 5 {2}"
          "--no-wd --label-smoothing --mixup --save-dir params_{0}_mixup "
          "--logging-file {0}_mixup.log")
_BEST = (_REC + "--model {0} --mode hybrid --lr 0.4 --lr-mode cosine --num-epochs 120 "
         "--batch-size 128 --num-gpus 8 -j 60 --warmup-epochs 5 --dtype float16 --use-rec "
         "--last-gamma --no-wd --label-smoothing --save-dir params_{0}_best "
         "--logging-file {0}_best.log")
_BEST_152 = (_REC + "--model {0} --mode hybrid --lr {1} --lr-mode cosine --num-epochs 120 "
             "--batch-size {2} --num-gpus 8 -j 60 --warmup-epochs 5 --use-rec --last-gamma --no-wd "
             "--label-smoothing --save-dir params_{0}_best --logging-file {0}_best.log")
_V1B = (_REC + "--model {0} --mode hybrid --lr 0.4 --lr-mode cosine --num-epochs 120 "
        "--batch-size {1} --warmup-epochs 5 --use-rec {2}--save-dir params_{0}")
_RESNEXT = (_REC + "--model {0} --mode hybrid --lr 0.4 --lr-mode cosine --num-epochs 200 "
            "--batch-size {1} --num-gpus 8 -j 90 --use-rec --dtype {2} --warmup-epochs 5 "
            "--last-gamma --no-wd --label-smoothing --mixup --save-dir params_{0}_best "
            "--logging-file {0}_best.log")

# Of train_imagenet.py.
IMAGENET = {
    **{name: _FOUR_GPUS + name for name in (
        "resnet18_v1", "resnet34_v1", "resnet50_v1", "resnet101_v1", "resnet152_v1",
        "resnet18_v2", "resnet34_v2", "resnet101_v2", "resnet152_v2")},
    "resnet50_v2": _V1B.format("resnet50_v2", "128 --num-gpus 8 -j 60", ""),
    **{name: _V1B.format(name, size, "--last-gamma ") for name, size in (
        ("resnet18_v1b", "256 --num-gpus 4 -j 30"), ("resnet34_v1b", "256 --num-gpus 4 -j 30"),
        ("resnet50_v1b", "128 --num-gpus 8 -j 60"))},
    "resnet101_v1b": _V1B.format("resnet101_v1b", "128 --num-gpus 8 -j 60",
                                 "--dtype float16 --last-gamma "),
    "resnet152_v1b": _BEST_152.format("resnet152_v1b", 0.1, 32),
    "resnet50_v1b_gn": (
        _REC + "--model resnet50_v1b --mode hybrid --lr 0.4 --lr-mode cosine --num-epochs 120 "
        "--batch-size 128 --num-gpus 8 -j 60 --warmup-epochs 5 --dtype float32 --use-rec "
        "--last-gamma --no-wd --label-smoothing --save-dir params_resnet50_v1b_gn_best "
        "--logging-file resnet50_v1b_gn_best.log --use-gn"),
    "resnet50_v1c": _BEST.format("resnet50_v1c"),
    "resnet101_v1c": _BEST.format("resnet101_v1c"),
    "resnet152_v1c": _BEST_152.format("resnet152_v1c", 0.1, 32),
    "resnet50_v1d": _BEST.format("resnet50_v1d"),
    "resnet50_v1d-mixup": _MIXUP.format("resnet50_v1d", "", "--last-gamma "),
    "resnet101_v1d": _MIXUP.format("resnet101_v1d", "", "--last-gamma "),
    "resnet152_v1d": _BEST_152.format("resnet152_v1d", 0.2, 64),
    "resnet152_v1d-mixup": (
        _REC + "--model resnet152_v1d --mode hybrid --lr 0.1 --lr-mode cosine --num-epochs 200 "
        "--batch-size 32 --num-gpus 8 -j 60 --use-rec --warmup-epochs 5 --last-gamma --no-wd "
        "--label-smoothing --mixup --save-dir params_resnet152_v1d_mixup "
        "--logging-file resnet152_v1d_mixup.log"),
    **{name: _RESNEXT.format(name, 128, "float16") for name in (
        "resnext50_32x4d", "resnext101_32x4d", "resnext101_64x4d")},
    "se_resnext50_32x4d": _RESNEXT.format("se_resnext50_32x4d", 128, "float32"),
    "se_resnext101_32x4d": _RESNEXT.format("se_resnext101_32x4d", 128, "float32"),
    "se_resnext101_64x4d": _RESNEXT.format("se_resnext101_64x4d", 64, "float32"),
    **{name: _VGG + name for name in ("vgg16", "vgg16_bn", "vgg19", "vgg19_bn")},
    **{name: _MOBILENET.format(name) for name in (
        "mobilenet0.25", "mobilenet0.5", "mobilenet0.75", "mobilenet1.0")},
    **{name: _MOBILENET_V2 + name for name in (
        "mobilenetv2_0.25", "mobilenetv2_0.5", "mobilenetv2_0.75", "mobilenetv2_1.0")},
    "mobilenetv3_large": _MOBILENET_V3.format("mobilenetv3_large"),
    "mobilenetv3_small": _MOBILENET_V3.format("mobilenetv3_small"),
    "darknet53": (
        _REC + "--model darknet53 --mode hybrid --lr 0.4 --lr-mode cosine --num-epochs 180 "
        "--batch-size 128 --num-gpus 8 -j 60 --warmup-epochs 5 --use-rec --dtype float16 "
        "--save-dir darknet53"),
    "darknet53-mixup": _MIXUP.format("darknet53", "", ""),
    "inceptionv3-mixup": _MIXUP.format("inceptionv3", "--input-size 299 ", ""),
    "googlenet_mixup": _MIXUP.format("googlenet", "--input-size 224 ", ""),
    "xception": (
        _REC + "--model xception --mode hybrid --input-size 299 --lr 0.1 --lr-mode cosine "
        "--num-epochs 200 --batch-size 32 --num-gpus 8 -j 60 --use-rec --dtype float32 "
        "--warmup-epochs 5 --no-wd --label-smoothing --save-dir params_xception "
        "--logging-file xception.log"),
}

_RESNEST = ("--rec-train R/train.rec --rec-val R/val.rec --model {0} --lr {1} --num-epochs 270 "
            "--batch-size {2} --use-rec --dtype float32 --warmup-epochs 5 --last-gamma --no-wd "
            "--label-smoothing --mixup --save-dir params_{0} --log-interval 100 "
            "--eval-frequency 5 --auto_aug --input-size {3}")

# Of train_horovod.py, with the number of its processes (horovodrun -np).
HOROVOD = {
    "resnest14": (8, _RESNEST.format("resnest14", 0.05, 128, 224) + " --data-nthreads 10"),
    "resnest26": (8, _RESNEST.format("resnest26", 0.05, 128, 224) + " --data-nthreads 10"),
    "resnest50": (64, _RESNEST.format("resnest50", 0.05, 128, 224)),
    "resnest101": (64, _RESNEST.format("resnest101", 0.025, 64, 224)),
    "resnest200": (64, _RESNEST.format("resnest200", 0.0125, 32, 256)),
    "resnest269": (64, _RESNEST.format("resnest269", 0.0125, 32, 320)),
}

_CIFAR = ("--num-epochs {1} --mode hybrid --num-gpus {2} -j {3} --batch-size {4} --wd {5} --lr 0.1 "
          "--lr-decay {6} --lr-decay-epoch {7} --model {0}")
_RESNET = (200, 1, 2, 128, "0.0001", 0.1, "100,150")
_WIDE = ("0.0005", 0.2, "60,120,160")

# Of train_cifar10.py.
CIFAR10 = {name: _CIFAR.format(f"cifar_{name}", *values) for name, values in {
    "resnet20_v1": _RESNET, "resnet56_v1": _RESNET, "resnet110_v1": _RESNET,
    "resnet110_v2": _RESNET,
    "resnet20_v2": (240, 1, 8, 128, "0.0001", 0.1, "80,160"),
    "resnet56_v2": (240, 1, 8, 128, "0.0001", 0.1, "80,160"),
    "resnext29_16x64d": (300, 4, 4, 32, "0.0005", 0.1, "150,225"),
    "wideresnet16_10": (200, 1, 8, 128, *_WIDE), "wideresnet28_10": (200, 1, 8, 128, *_WIDE),
    "wideresnet40_8": (200, 2, 2, 64, *_WIDE)}.items()}

# Of train_mixup_cifar10.py. That of resnet20_v2 names resnet20_v1.
MIXUP_CIFAR10 = {name: _CIFAR.format(f"cifar_{model}", *values) for name, model, values in (
    ("resnet20_v1", "resnet20_v1", (350, 1, 8, 128, "0.0001", 0.1, "150,250")),
    ("resnet20_v2", "resnet20_v1", (220, *_RESNET[1:])),
    *((name, name, (220, *_RESNET[1:])) for name in (
        "resnet56_v1", "resnet56_v2", "resnet110_v1", "resnet110_v2")),
    ("resnext29_16x64d", "resnext29_16x64d", (320, 4, 4, 32, "0.0001", 0.1, "150,225")),
    *((name, name, (220, 2, 2, 64, *_WIDE)) for name in (
        "wideresnet16_10", "wideresnet28_10", "wideresnet40_8")))}
