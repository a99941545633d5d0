"""Third-party packages a program may import, and nothing else of site-packages."""

import importlib.util
import os


class PackageFinder:
    """Finds each allowed package by its own folder, so that site-packages itself need not be on the path."""

    def __init__(self, folders: dict):
        self.folders = folders

    def find_spec(self, name, path=None, target=None):
        folder = self.folders.get(name)
        if folder is None:
            return None
        return importlib.util.spec_from_file_location(
            name, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
        )
