"""ExpPortrait: portrait animation for ComfyUI. ComfyUI's door; as a library, import the sub-packages."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Called by ComfyUI's loader: returns the extension that lists the nodes."""
    from .nodes import ExpPortraitExtension

    return ExpPortraitExtension()
