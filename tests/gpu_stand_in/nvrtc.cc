// A stand-in for libnvrtc.so.12 beside driver.cc: the host's compiler, which gets the kernels' text with the host's way to run phases in
// the place of the GPU's. "Machine code" is 16 bytes, the length in the last eight, and a shared library.
//
//   HOST_PHASES        path of the host's way to run phases (src/engine/cuda/kernels/host.h)
//   STAND_IN_BROKEN    if set, nothing compiles

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>

namespace {

struct Program {
    std::string text, code, log;
};

std::string contents(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
}

// From here on the text is the GPU's way to run phases, up to the next comment that begins a file.
const char* const BEGIN = "// How phases run on a GPU";
const char* const END = "// What a kernel gets";

bool compile(Program& program) {
    const size_t begin = program.text.find(BEGIN), end = program.text.find(END);
    if (std::getenv("STAND_IN_BROKEN") || begin == std::string::npos || end == std::string::npos) {
        program.log = "kernels.cu(1): error: expected a declaration";
        return false;
    }
    std::string folder = "/tmp/stand-in-XXXXXX";
    if (!mkdtemp(&folder[0])) return false;
    const std::string source = folder + "/kernels.cc", library = folder + "/kernels.so", log = folder + "/log";
    std::ofstream(source) << program.text.substr(0, begin) << contents(std::getenv("HOST_PHASES")) << program.text.substr(end);
    const std::string command = "c++ -std=c++17 -O1 -shared -fPIC -o " + library + " " + source + " >" + log + " 2>&1";
    const bool done = std::system(command.c_str()) == 0;
    program.log = contents(log);
    const std::string bytes = contents(library);
    const unsigned long long length = bytes.size();
    program.code.assign(16, '\0');
    std::memcpy(&program.code[8], &length, sizeof length);
    program.code += bytes;
    return done && std::system(("rm -r " + folder).c_str()) == 0;
}

int size_of(const std::string& text, size_t* size) {
    *size = text.size();
    return 0;
}

int copy(const std::string& text, char* to) {
    std::memcpy(to, text.data(), text.size());
    return 0;
}

}  // namespace

extern "C" {

int nvrtcVersion(int* major, int* minor) {
    *major = 12;
    *minor = 9;
    return 0;
}
int nvrtcGetNumSupportedArchs(int* count) {
    *count = 2;
    return 0;
}
int nvrtcGetSupportedArchs(int* architectures) {
    architectures[0] = 80;
    architectures[1] = 90;
    return 0;
}
int nvrtcCreateProgram(Program** program, const char* text, const char*, int, const char* const*, const char* const*) {
    *program = new Program{text, "", ""};
    return 0;
}
int nvrtcDestroyProgram(Program** program) {
    delete *program;
    return 0;
}
int nvrtcCompileProgram(Program* program, int, const char* const*) { return compile(*program) ? 0 : 6; }
int nvrtcGetProgramLogSize(Program* program, size_t* size) { return size_of(program->log, size); }
int nvrtcGetProgramLog(Program* program, char* to) { return copy(program->log, to); }
int nvrtcGetCUBINSize(Program* program, size_t* size) { return size_of(program->code, size); }
int nvrtcGetCUBIN(Program* program, char* to) { return copy(program->code, to); }
const char* nvrtcGetErrorString(int) { return "NVRTC_ERROR_COMPILATION"; }
}
