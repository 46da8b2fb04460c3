/* hsm-agent.exe: starts the agent in this very process, with the interpreter in the folder `python` beside it.
 *
 * One process, so that its end, its whole 32 bits of exit status, Ctrl-C and the handles it was given are the agent's
 * own. The interpreter lies in a folder of its own because ours is on the PATH, where other programs would find
 * libcrypto-3.dll and vcruntime140.dll; and it is loaded by its full path, with its neighbours and the system's
 * folder alone to look into, so that no DLL of the current folder or of the PATH gets into a program of SYSTEM.
 */
#include <stdio.h>
#include <stdlib.h>
#include <wchar.h>
#include <windows.h>

#define TEXT_OF_(name) L## #name
#define TEXT_OF(name) TEXT_OF_(name)
#define LONGEST 32768 /* of a path in Windows */

/* -I: no variable PYTHON*, no registry, no folder of the user (python313._pth says so too, but is read after the
 *     variables); -B: nothing is written into Program Files; utf8: what goes into a pipe or a file is UTF-8, as on
 *     Linux, and not what the code page of the machine happens to be. */
static wchar_t *const OWN[] = {L"-I", L"-B", L"-X", L"utf8", L"-m", L"agent"};
enum { OWN_COUNT = sizeof OWN / sizeof OWN[0] };

int _dowildcard = 0; /* a `*` is the agent's to read, as everywhere in Windows */

static wchar_t self[LONGEST], library[LONGEST + 64];

static int cannot(const wchar_t *what)
{
    fwprintf(stderr, L"hsm-agent cannot start: %ls: error %lu\n", what, GetLastError());
    return 1;
}

int wmain(int argc, wchar_t **argv)
{
    DWORD length = GetModuleFileNameW(NULL, self, LONGEST);
    if (length == 0 || length == LONGEST)
        return cannot(L"its own path");
    size_t folder = wcsrchr(self, L'\\') + 1 - self;
    swprintf(library, LONGEST + 64, L"%.*lspython\\%ls.dll", (int)folder, self, TEXT_OF(INTERPRETER));
    HMODULE module =
        LoadLibraryExW(library, NULL, LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR | LOAD_LIBRARY_SEARCH_SYSTEM32);
    if (module == NULL)
        return cannot(library);
    int (*run)(int, wchar_t **) = (int (*)(int, wchar_t **))(void *)GetProcAddress(module, "Py_Main");
    if (run == NULL)
        return cannot(library);

    wchar_t **words = calloc(argc + OWN_COUNT + 1, sizeof *words);
    if (words == NULL)
        return cannot(L"memory");
    int count = 0;
    words[count++] = self;
    for (int each = 0; each < OWN_COUNT; each++)
        words[count++] = OWN[each];
    for (int each = 1; each < argc; each++)
        words[count++] = argv[each];
    return run(count, words);
}
