/* Stands for each of the vendor's programs: X.exe runs the script X.py beside it with a Python of Windows.

   Words go on as they came: the rest of the command line is handed over unread, so whoever reads it splits it by the
   same rules. Streams and exit status are the script's own. If this process is ended, the job ends the script too. */
#include <windows.h>

#define PYTHON L"Z:\\opt\\python\\python.exe"
/* -X utf8: as the vendor's programs, not as the code page; the other: what it imports is compiled once for all calls */
#define OPTIONS L" -I -S -X utf8 -X pycache_prefix=Z:\\scratch\\pyc "
#define LONGEST 32768
#define BROKEN 70

static wchar_t line[LONGEST];

static const wchar_t *words(const wchar_t *at)
{
    int quoted = 0;
    for (; *at && (quoted || (*at != L' ' && *at != L'\t')); at++)
        if (*at == L'"')
            quoted = !quoted;
    return at;
}

static int failed(const char *what)
{
    DWORD written;
    WriteFile(GetStdHandle(STD_ERROR_HANDLE), what, lstrlenA(what), &written, NULL);
    return BROKEN;
}

int main(void)
{
    static wchar_t script[LONGEST];
    const wchar_t *rest = words(GetCommandLineW());
    DWORD length = GetModuleFileNameW(NULL, script, LONGEST), status = BROKEN;
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION limits = {.BasicLimitInformation.LimitFlags = 0};
    STARTUPINFOW startup = {.cb = sizeof startup};
    PROCESS_INFORMATION child;
    HANDLE job = CreateJobObjectW(NULL, NULL);

    if (length < 4 || length + lstrlenW(rest) + lstrlenW(PYTHON OPTIONS) + 5 > LONGEST)
        return failed("stand-in: too long a line\n");
    lstrcpyW(script + length - 4, L".py");
    lstrcpyW(line, L"\"" PYTHON L"\"" OPTIONS L"\"");
    lstrcatW(line, script);
    lstrcatW(line, L"\"");
    lstrcatW(line, rest);
    limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | JOB_OBJECT_LIMIT_BREAKAWAY_OK;
    if (!job || !SetInformationJobObject(job, JobObjectExtendedLimitInformation, &limits, sizeof limits))
        return failed("stand-in: no job\n");
    startup.dwFlags = STARTF_USESTDHANDLES;
    startup.hStdInput = GetStdHandle(STD_INPUT_HANDLE);
    startup.hStdOutput = GetStdHandle(STD_OUTPUT_HANDLE);
    startup.hStdError = GetStdHandle(STD_ERROR_HANDLE);
    if (!CreateProcessW(PYTHON, line, NULL, NULL, TRUE, CREATE_SUSPENDED, NULL, NULL, &startup, &child))
        return failed("stand-in: no Python\n");
    if (!AssignProcessToJobObject(job, child.hProcess))
        return failed("stand-in: not into the job\n");
    ResumeThread(child.hThread);
    WaitForSingleObject(child.hProcess, INFINITE);
    GetExitCodeProcess(child.hProcess, &status);
    return (int)status;
}
