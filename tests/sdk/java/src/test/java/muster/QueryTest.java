package muster;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import com.google.gson.JsonParser;
import com.microsoft.azure.sdk.iot.service.exceptions.IotHubBadFormatException;
import com.microsoft.azure.sdk.iot.service.query.QueryClient;
import com.microsoft.azure.sdk.iot.service.query.QueryPageOptions;
import com.microsoft.azure.sdk.iot.service.query.RawQueryResponse;
import com.microsoft.azure.sdk.iot.service.query.SqlQueryBuilder;
import com.microsoft.azure.sdk.iot.service.query.SqlQueryBuilder.FromType;
import com.microsoft.azure.sdk.iot.service.query.TwinQueryResponse;
import com.microsoft.azure.sdk.iot.service.twin.Twin;
import com.microsoft.azure.sdk.iot.service.twin.TwinClient;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;

/** iot-service-client asks a hub for twins by the query language. */
@ExtendWith(Fixture.class)
@ServerPerTest
final class QueryTest {
    private static final int PAGE = 2;

    @Test
    @Shows(client = Sdk.SERVICE, credential = "policy", feature = "queries of twins: conditions, pages, aggregates")
    void twinsAreFoundByTheirTagsPageByPage(Muster muster) throws Exception {
        TwinClient twins = Devices.twins(muster);
        for (int number = 1; number <= 5; number++) {
            String name = "dev-" + number;
            Devices.create(muster, name);
            Twin patch = new Twin(name);
            patch.getTags().put("cave", number <= 3 ? "north" : "south");
            twins.patch(patch);
        }
        QueryClient queries = new QueryClient(muster.hubConnectionString());
        String north = SqlQueryBuilder.createSqlQuery("*", FromType.DEVICES, "tags.cave = 'north'", null);
        assertEquals(List.of("dev-1", "dev-2", "dev-3"), names(queries.queryTwins(north, pages())));
        assertEquals(List.of("dev-1", "dev-2", "dev-3"), names(twins.query(north)));

        RawQueryResponse counted =
                queries.queryRaw("SELECT tags.cave AS cave, COUNT() AS number FROM devices GROUP BY tags.cave");
        List<String> groups = new ArrayList<>();
        while (counted.hasNext()) {
            var group = JsonParser.parseString(counted.next()).getAsJsonObject();
            groups.add(group.get("cave").getAsString() + " " + group.get("number").getAsInt());
        }
        Collections.sort(groups);
        assertEquals(List.of("north 3", "south 2"), groups);

        String broken = "SELECT * FROM devices WHERE tags.cave =";
        assertThrows(IotHubBadFormatException.class, () -> queries.queryTwins(broken).hasNext());
    }

    private static QueryPageOptions pages() {
        return QueryPageOptions.builder().pageSize(PAGE).build();
    }

    private static List<String> names(TwinQueryResponse found) throws Exception {
        List<String> names = new ArrayList<>();
        while (found.hasNext()) {
            names.add(found.next(pages()).getDeviceId());
        }
        Collections.sort(names);
        return names;
    }
}
