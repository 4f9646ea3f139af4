"""ComfyUI custom node: lets ComfyUI's node "Load Upscale Model" load the models of d2csr.

Copy this folder to ComfyUI/custom_nodes/, and install d2csr into ComfyUI's Python environment.
"""

from d2csr.integrations.spandrel import install

install()

# ComfyUI expects these of a custom node; loading by spandrel needs no node of its own.
NODE_CLASS_MAPPINGS: dict[str, type] = {}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}
