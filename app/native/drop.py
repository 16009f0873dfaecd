"""Files dropped from the desktop on Dear PyGui's window, which has no such thing of its own.

Linux is tested. The macOS and Windows parts are written from the sources of GLFW 3.3.7 and Dear
PyGui 2.3.1 and have never run.

``on_paths`` is called in the middle of a frame: it may only put the paths in a queue.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

from app.native.binding import raw_glfw

OnPaths = Callable[[list[str]], None]
_DROP = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_char_p))
_WM_DROPFILES = 0x0233
_keep: list[Any] = []  # callbacks that C holds; the garbage collector does not see that


def accept_glfw(window: Any, on_paths: OnPaths) -> None:
    """Drops on a GLFW window.

    Not by ``glfw.set_drop_callback``: it decodes strictly, and a file name that is not UTF-8
    would end the program in some later call.
    """

    def dropped(_window: int, count: int, paths: Any) -> None:
        on_paths([os.fsdecode(paths[i]) for i in range(count)])

    callback = _DROP(dropped)
    _keep.append(callback)
    install = raw_glfw().glfwSetDropCallback
    install.restype, install.argtypes = ctypes.c_void_p, [ctypes.c_void_p, _DROP]
    install(ctypes.cast(window, ctypes.c_void_p), callback)


def mac_window() -> Any:
    """The GLFW window of Dear PyGui on macOS, or None.

    It draws with Metal, so no OpenGL context leads to the window; GLFW's content view keeps the
    pointer in its instance variable ``window``.
    """
    import glfw

    pointer = ctypes.c_void_p
    objc = ctypes.CDLL("/usr/lib/libobjc.dylib")
    for name, result, arguments in (
        ("objc_getClass", pointer, [ctypes.c_char_p]),
        ("sel_registerName", pointer, [ctypes.c_char_p]),
        ("object_getClass", pointer, [pointer]),
        ("class_getName", ctypes.c_char_p, [pointer]),
        ("object_getInstanceVariable", pointer, [pointer, ctypes.c_char_p, pointer]),
    ):
        function = getattr(objc, name)
        function.restype, function.argtypes = result, arguments

    def send(target: Any, selector: bytes, *index: int, result: Any = pointer) -> Any:
        kind = ctypes.CFUNCTYPE(result, pointer, pointer, *[ctypes.c_ulong] * len(index))
        return kind(("objc_msgSend", objc))(target, objc.sel_registerName(selector), *index)

    application = send(objc.objc_getClass(b"NSApplication"), b"sharedApplication")
    windows = send(application, b"windows")
    for i in range(send(windows, b"count", result=ctypes.c_ulong)):
        view = send(send(windows, b"objectAtIndex:", i), b"contentView")
        if not view or objc.class_getName(objc.object_getClass(view)) != b"GLFWContentView":
            continue
        found = pointer()
        if objc.object_getInstanceVariable(view, b"window", ctypes.byref(found)) and found:
            window = ctypes.cast(found, ctypes.POINTER(glfw._GLFWwindow))
            if glfw.get_window_attrib(window, glfw.VISIBLE):  # not our hidden one
                return window
    return None


def windows_handle(title: str) -> int | None:
    """The HWND of this thread's window called ``title``, or None."""
    assert sys.platform == "win32"
    from ctypes import wintypes

    user, kernel = ctypes.WinDLL("user32"), ctypes.WinDLL("kernel32")
    visitor = ctypes.WINFUNCTYPE(wintypes.BOOL, wintypes.HWND, wintypes.LPARAM)
    user.EnumThreadWindows.argtypes = [wintypes.DWORD, visitor, wintypes.LPARAM]
    user.GetWindowTextW.argtypes = [wintypes.HWND, wintypes.LPWSTR, ctypes.c_int]
    found: list[int] = []

    def visit(window: int, _: int) -> bool:
        text = ctypes.create_unicode_buffer(512)
        user.GetWindowTextW(window, text, len(text))
        if text.value == title:
            found.append(window)
        return True

    user.EnumThreadWindows(kernel.GetCurrentThreadId(), visitor(visit), 0)
    return found[0] if found else None


def accept_windows(window: int, on_paths: OnPaths) -> bool:
    """Drops on a plain Windows window, through a subclass of its window procedure."""
    assert sys.platform == "win32"
    from ctypes import wintypes

    shell, controls = ctypes.WinDLL("shell32"), ctypes.WinDLL("comctl32")
    size, result = ctypes.c_size_t, ctypes.c_ssize_t
    message = [wintypes.HWND, wintypes.UINT, wintypes.WPARAM, wintypes.LPARAM]
    procedure = ctypes.WINFUNCTYPE(result, *message, size, size)
    shell.DragAcceptFiles.argtypes = [wintypes.HWND, wintypes.BOOL]
    shell.DragQueryFileW.argtypes = [size, wintypes.UINT, wintypes.LPWSTR, wintypes.UINT]
    shell.DragQueryFileW.restype = wintypes.UINT
    shell.DragFinish.argtypes = [size]
    controls.DefSubclassProc.argtypes = message
    controls.DefSubclassProc.restype = result
    controls.SetWindowSubclass.argtypes = [wintypes.HWND, procedure, size, size]

    def handle(hwnd: int, kind: int, first: int, second: int, _id: int, _data: int) -> int:
        if kind != _WM_DROPFILES:
            return controls.DefSubclassProc(hwnd, kind, first, second)
        paths = []
        for i in range(shell.DragQueryFileW(first, 0xFFFFFFFF, None, 0)):
            text = ctypes.create_unicode_buffer(shell.DragQueryFileW(first, i, None, 0) + 1)
            shell.DragQueryFileW(first, i, text, len(text))
            paths.append(text.value)
        shell.DragFinish(first)
        on_paths(paths)
        return 0

    callback = procedure(handle)
    _keep.append(callback)
    installed = bool(controls.SetWindowSubclass(window, callback, 1, 0))
    if installed:
        shell.DragAcceptFiles(window, True)
    return installed
