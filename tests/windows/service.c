/* Stands for the service of SDK 3's client: runs cloudhsm_client.exe beside it while it is started.

   What that says goes to cloudhsm.log beside it. It is in a job, and so is what it starts in turn: a stop ends all. When
   it ends by itself, so does the service, with its exit status. */
#include <windows.h>

#define NAME L"AWSCloudHSMClient"
#define PROGRAM L"cloudhsm_client.exe"
#define WORDS L" \"C:\\ProgramData\\Amazon\\CloudHSM\\data\\cloudhsm_client.cfg\""
#define LONGEST 1024

static SERVICE_STATUS_HANDLE told;
static HANDLE stop;

static void tell(DWORD state, DWORD status)
{
    SERVICE_STATUS now = {.dwServiceType = SERVICE_WIN32_OWN_PROCESS};
    now.dwCurrentState = state;
    now.dwControlsAccepted = state == SERVICE_RUNNING ? SERVICE_ACCEPT_STOP : 0;
    now.dwWin32ExitCode = status ? ERROR_SERVICE_SPECIFIC_ERROR : NO_ERROR;
    now.dwServiceSpecificExitCode = status;
    SetServiceStatus(told, &now);
}

static DWORD WINAPI control(DWORD word, DWORD type, LPVOID data, LPVOID context)
{
    (void)type, (void)data, (void)context;
    if (word == SERVICE_CONTROL_STOP) {
        tell(SERVICE_STOP_PENDING, 0);
        SetEvent(stop);
    }
    return NO_ERROR;
}

static DWORD run(void)
{
    wchar_t folder[LONGEST], line[2 * LONGEST] = L"\"", log[LONGEST];
    SECURITY_ATTRIBUTES handed_on = {.nLength = sizeof handed_on, .bInheritHandle = TRUE};
    STARTUPINFOW startup = {.cb = sizeof startup, .dwFlags = STARTF_USESTDHANDLES};
    PROCESS_INFORMATION child;
    HANDLE job = CreateJobObjectW(NULL, NULL), ends[2];
    DWORD length = GetModuleFileNameW(NULL, folder, LONGEST - 32), status = 0;

    while (length && folder[length - 1] != L'\\')
        folder[--length] = 0;
    lstrcpyW(log, folder);
    lstrcatW(log, L"cloudhsm.log");
    lstrcatW(line, folder);
    lstrcatW(line, PROGRAM L"\"" WORDS);
    startup.hStdOutput = startup.hStdError = CreateFileW(log, FILE_APPEND_DATA, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                                                         &handed_on, OPEN_ALWAYS, FILE_ATTRIBUTE_NORMAL, NULL);
    if (!job || !CreateProcessW(NULL, line, NULL, NULL, TRUE, CREATE_SUSPENDED, NULL, NULL, &startup, &child))
        return GetLastError();
    AssignProcessToJobObject(job, child.hProcess);
    ResumeThread(child.hThread);
    tell(SERVICE_RUNNING, 0);
    ends[0] = stop;
    ends[1] = child.hProcess;
    if (WaitForMultipleObjects(2, ends, FALSE, INFINITE) != WAIT_OBJECT_0)
        GetExitCodeProcess(child.hProcess, &status);
    TerminateJobObject(job, 1);
    return status;
}

static void WINAPI main_of_service(DWORD count, LPWSTR *words)
{
    (void)count, (void)words;
    stop = CreateEventW(NULL, TRUE, FALSE, NULL);
    told = RegisterServiceCtrlHandlerExW(NAME, control, NULL);
    tell(SERVICE_STOPPED, run());
}

int main(void)
{
    SERVICE_TABLE_ENTRYW table[] = {{(wchar_t *)NAME, main_of_service}, {NULL, NULL}};
    return !StartServiceCtrlDispatcherW(table);
}
