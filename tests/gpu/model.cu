// The model of the checks: says which GPUs it sees, and computes a sum over /input/data on each of them, for as long as
// /input/seconds says. checks.py knows the sum as well.
#include <chrono>
#include <cstdio>
#include <dirent.h>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#define MUST(call)                                                                                                     \
    do {                                                                                                               \
        cudaError_t error = (call);                                                                                    \
        if (error != cudaSuccess) {                                                                                    \
            fprintf(stderr, "%s: %s\n", #call, cudaGetErrorString(error));                                             \
            return 1;                                                                                                  \
        }                                                                                                              \
    } while (0)

__global__ void sum_of(const unsigned char *data, size_t size, unsigned long long *sum) {
    unsigned long long mine = 0;
    for (size_t i = blockIdx.x * blockDim.x + threadIdx.x; i < size; i += size_t(gridDim.x) * blockDim.x) {
        unsigned long long x = data[i] + i;
        for (int round = 0; round < 8; ++round)
            x = x * 6364136223846793005ULL + 1442695040888963407ULL;
        mine += x;
    }
    atomicAdd(sum, mine);
}

static double now() {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

static std::string uuid_of(const cudaDeviceProp &gpu) {
    std::string text = "GPU-";
    for (int i = 0; i < 16; ++i) {
        char pair[3];
        snprintf(pair, sizeof pair, "%02x", (unsigned char)gpu.uuid.bytes[i]);
        text += (i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "") + std::string(pair);
    }
    return text;
}

int main() {
    double started = now(), seconds = 0;
    std::ifstream("/input/seconds") >> seconds;
    std::ifstream input("/input/data", std::ios::binary);
    std::vector<char> data((std::istreambuf_iterator<char>(input)), {});
    std::ofstream out("/output/seen.json");

    out << "{\"nodes\": [";
    int nodes = 0;
    DIR *dev = opendir("/dev");
    while (dirent *entry = dev ? readdir(dev) : nullptr)
        if (std::string(entry->d_name).rfind("nvidia", 0) == 0)
            out << (nodes++ ? ", " : "") << "\"" << entry->d_name << "\"";

    int count = 0;
    cudaError_t found = cudaGetDeviceCount(&count);
    out << "], \"cuda\": \"" << cudaGetErrorString(found) << "\", \"gpus\": [";
    for (int gpu = 0; found == cudaSuccess && gpu < count; ++gpu) {
        cudaDeviceProp properties;
        unsigned char *bytes;
        unsigned long long *sum, result;
        MUST(cudaSetDevice(gpu));
        MUST(cudaGetDeviceProperties(&properties, gpu));
        MUST(cudaMalloc(&bytes, data.size() + 1));
        MUST(cudaMalloc(&sum, sizeof *sum));
        MUST(cudaMemcpy(bytes, data.data(), data.size(), cudaMemcpyHostToDevice));
        do {
            MUST(cudaMemset(sum, 0, sizeof *sum));
            sum_of<<<64, 256>>>(bytes, data.size(), sum);
            MUST(cudaGetLastError());
            MUST(cudaMemcpy(&result, sum, sizeof result, cudaMemcpyDeviceToHost));
        } while (now() < started + seconds);
        out << (gpu ? ", " : "") << "{\"uuid\": \"" << uuid_of(properties) << "\", \"name\": \"" << properties.name
            << "\", \"sum\": \"" << result << "\"}";
    }
    out.precision(17);
    out << "], \"started\": " << started << ", \"ended\": " << now() << "}\n";
    return 0;
}
