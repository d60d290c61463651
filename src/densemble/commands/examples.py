"""Examples at the end of the help of each command; a test parses all of them."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "": (
        "densemble demo",
        "densemble train my-data --task saliency --preset fast -o runs/gaze",
    ),
    "demo": (
        "densemble demo",
        "densemble demo -o demo-output --epochs 5 --json",
    ),
    "doctor": (
        "densemble doctor",
        "densemble doctor --report > report.md",
        "densemble doctor --clean",
    ),
    "backbones": (
        "densemble backbones 'res*'",
        "densemble backbones 'timm/*lite*' --json",
    ),
    "cuts": (
        "densemble cuts resnet50",
        "densemble cuts timm/tf_efficientnet_lite0 --size 480x640 --every",
    ),
    "data": (
        "densemble data check my-data --task segmentation",
        "densemble data show my-data -o preview.png",
    ),
    "data check": (
        "densemble data check my-data",
        "densemble data check my-data --task segmentation --page check.html",
    ),
    "data show": (
        "densemble data show my-data -o preview.png",
        "densemble data show my-data --split val --count 16 --augmented light",
    ),
    "train": (
        "densemble train my-data --task saliency --preset fast -o runs/gaze",
        "densemble train my-data --config run.yaml --time 30m -o runs/gaze",
        "densemble train my-data -o runs/gaze --resume",
    ),
    "tune": (
        "densemble tune my-data --task depth --backbone resnet18 -o runs/tune",
        "densemble tune my-data --config run.yaml --backbone resnet18 -o runs/tune",
    ),
    "assemble": (
        "densemble assemble runs/gaze -o gaze.safetensors",
        "densemble assemble runs/gaze -o small.safetensors --budget 50 --json",
    ),
    "leaderboard": (
        "densemble leaderboard runs/gaze",
        "densemble leaderboard runs/gaze --json",
    ),
    "distill": (
        "densemble distill gaze.safetensors my-data --student resnet18 \\\n       -o small.safetensors",
        "densemble distill gaze.safetensors my-data --student resnet18 \\\n"
        "       -o small.safetensors --unlabelled photos",
    ),
    "evaluate": (
        "densemble evaluate gaze.safetensors my-data",
        "densemble evaluate gaze.safetensors my-data --split val --json",
        "densemble evaluate gaze.safetensors my-data --report report.html",
    ),
    "predict": (
        "densemble predict gaze.safetensors photos -o maps",
        "densemble predict gaze.safetensors 'photos/*.jpg' -o maps --save map,npy",
    ),
    "export": (
        "densemble export gaze.safetensors -o gaze.onnx",
        "densemble export gaze.safetensors -o gaze.py",
    ),
    "benchmark": (
        "densemble benchmark gaze.safetensors --size 240x320",
        "densemble benchmark gaze.safetensors --data my-data --keep 0.995",
    ),
    "card": (
        "densemble card gaze.safetensors",
        "densemble card gaze.safetensors -o README.md --license apache-2.0",
    ),
    "push": (
        "densemble push gaze.safetensors USER/NAME --private",
        "densemble push gaze.safetensors USER/NAME --license apache-2.0",
    ),
    "schema": (
        "densemble schema > run.schema.json",
        "densemble schema -o run.schema.json",
    ),
}
"""Words of a command without ``densemble`` -> its examples."""
