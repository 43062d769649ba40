"""The web demo under the name by which AI Studio finds Gradio apps; `demo/app.py` is the app.

python demo/app.gradio.py
"""

import runpy
from pathlib import Path

demo = runpy.run_path(str(Path(__file__).with_name("app.py")), run_name=__name__)["demo"]
